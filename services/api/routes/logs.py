"""GET /v1/executions/{id}/steps/{name}/log: what a step wrote, as text, or as a stream while it runs.

api reads the blob store alone; on which machine the worker runs, or ran, does not matter.
"""

import re
from collections.abc import Generator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from services.api import executions, openapi, steplogs
from services.api.keys import Caller
from services.api.parts import AnyParts, Parts, Viewer, follow
from services.api.problems import not_found, unavailable
from services.api.sending import Pieces
from services.api.steplogs import Known, Tail
from services.api.streams import Look, foreign_event_id, last_event_id, message, wants_stream
from services.contracts.ids import EXECUTION_ID
from services.runtime.blobs import Blobs, BlobsUnavailable

END = "end"
_POSITION = re.compile(r"([0-9]{1,6})-([0-9]{1,9})|end", re.ASCII)

router = APIRouter(prefix="/v1/executions", tags=["executions"], responses=openapi.PROBLEMS)
Id = Annotated[str, Path(description="40 hex digits, as answered to the submit")]


@router.get(
    "/{id}/steps/{name}/log",
    operation_id="getStepLog",
    responses=openapi.LOG,
    openapi_extra=openapi.last_event_id("^([0-9]{1,6}-[0-9]{1,9}|end)$"),
)
async def log(
    request: Request,
    id: Id,
    name: Annotated[str, Path(description="a step of the execution")],
    caller: Viewer,
    parts: AnyParts,
) -> Response:
    """The log of a step: all attempts, one after the other. Empty before the first line.

    With `Accept: text/event-stream` the answer goes on until the step has ended: messages of whole lines, and
    a last one `event: end`. Cut off, come back with `Last-Event-ID`.
    """
    last = last_event_id(request, _POSITION)
    found = await _known(parts, caller, id, name)
    if found is None:
        raise not_found()
    if wants_stream(request):
        if last is not None and not await run_in_threadpool(_was_sent, parts.blobs, found, last):
            raise foreign_event_id("no line of this log ends there")
        return _stream(request, parts, caller, id, name, last)
    text = _text(parts.blobs, found)
    try:
        first = await run_in_threadpool(next, text, b"")
    except BlobsUnavailable:
        raise unavailable("the blob store does not answer") from None
    return Pieces(_joined(first, text), media_type="text/plain; charset=utf-8")


async def _known(parts: Parts, caller: Caller, id: str, name: str) -> Known | None:
    def find(cursor: Any) -> Known | None:
        row = executions.find(cursor, caller.tenant, id)
        return None if row is None else steplogs.known(cursor, row, name)

    return await parts.pool.read(find) if EXECUTION_ID.fullmatch(id) else None


def _was_sent(blobs: Blobs, found: Known, last: re.Match[str]) -> bool:
    """Whether a message with this id can have been sent. A store that is away does not deny it."""
    if last[0] == END:
        return found.over
    try:
        return steplogs.reaches(blobs, found, *map(int, last.groups()))
    except BlobsUnavailable:
        return True


def _text(blobs: Blobs, found: Known) -> Generator[bytes, None, None]:
    tail = Tail(blobs)
    while pieces := tail.read(found):
        yield "".join(piece.text for piece in pieces).encode()


def _joined(first: bytes, rest: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    yield first
    yield from rest


def _stream(
    request: Request, parts: Parts, caller: Caller, id: str, name: str, last: re.Match[str] | None
) -> Response:
    if last is not None and last[0] == END:
        return Response(status_code=204)  # an EventSource comes back until it hears this
    tail = Tail(parts.blobs, *(map(int, last.groups()) if last else ()))
    found: Known | None = None

    async def look(changed: bool) -> Look:
        nonlocal found
        if changed or found is None:
            found = await _known(parts, caller, id, name)
        if found is None:  # removed meanwhile
            return Look("", "end")
        pieces = await run_in_threadpool(tail.read, found)
        if pieces:
            return Look("".join(message(piece.text, piece.position) for piece in pieces), "again")
        return Look(message("", END, END), "end") if found.over else Look("", "poll")

    return follow(request, parts, caller, id, look)
