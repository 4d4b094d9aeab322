"""What happened to an execution: as JSON in pages, or as a stream that goes on (Server-Sent Events)."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from services.api import executions, openapi
from services.api.executions import Execution
from services.api.keys import Caller
from services.api.parts import AnyParts, Parts, Viewer, follow
from services.api.problems import not_found
from services.api.streams import Look, foreign_event_id, last_event_id, message, wants_stream
from services.contracts.ids import EXECUTION_ID
from services.contracts.status import Status

EVENTS_MAX = 1000
_SEQUENCE = re.compile(r"[0-9]{1,18}", re.ASCII)

router = APIRouter(prefix="/v1/executions", tags=["executions"], responses=openapi.PROBLEMS)
Id = Annotated[str, Path(description="40 hex digits, as answered to the submit")]
Rows = list[tuple[int, str]]


@router.get(
    "/{id}/events",
    operation_id="listExecutionEvents",
    responses={
        200: openapi.json_or_stream("EventPage", "in order of sequence"),
        204: {"description": "a stream was asked for, the execution has ended, and nothing is new"},
    },
    openapi_extra=openapi.last_event_id("^[0-9]{1,18}$"),
)
async def events(
    request: Request,
    id: Id,
    caller: Viewer,
    parts: AnyParts,
    after: Annotated[int, Query(ge=0, le=2**62, description="the `last` of the former answer")] = 0,
    limit: Annotated[
        int, Query(ge=1, le=EVENTS_MAX, description="of a page; a stream has none")
    ] = EVENTS_MAX,
) -> Response:
    """What happened to an execution, without gaps. Ask again with `after=<last>` to follow.

    With `Accept: text/event-stream` the answer goes on until the execution has ended: one message an event,
    `id:` its sequence, and a last one `event: end` with the status. Cut off, come back with `Last-Event-ID`.
    """
    if wants_stream(request):
        return await _stream(request, id, caller, parts, after)
    found = await _read(parts, caller, id, after, limit)
    if found is None:
        raise not_found()
    _, rows = found
    last = rows[-1][0] if rows else after
    body = f'{{"events":[{",".join(text for _, text in rows)}],"last":{last}}}'
    return Response(body, media_type="application/json")


async def _stream(request: Request, id: str, caller: Caller, parts: Parts, after: int) -> Response:
    known = last_event_id(request, _SEQUENCE)
    last = int(known[0]) if known else after
    found = await _read(parts, caller, id, last, 1)
    if found is None:
        raise not_found()
    row, rows = found
    if known and last > row.sequence:
        raise foreign_event_id(f"the newest is {row.sequence}")
    if Status(row.status).terminal and not rows:
        return Response(status_code=204)  # an EventSource comes back until it hears this

    async def look(_: bool) -> Look:
        nonlocal last
        seen = await _read(parts, caller, id, last, EVENTS_MAX)
        if seen is None:  # removed meanwhile
            return Look("", "end")
        row, rows = seen
        text = "".join(message(body, str(sequence)) for sequence, body in rows)
        last = rows[-1][0] if rows else last
        if len(rows) == EVENTS_MAX:
            return Look(text, "again")
        if Status(row.status).terminal:
            return Look(text + message(f'{{"status":"{row.status}"}}', event="end"), "end")
        return Look(text, "wait")

    return follow(request, parts, caller, id, look)


async def _read(
    parts: Parts, caller: Caller, id: str, after: int, limit: int
) -> tuple[Execution, Rows] | None:
    def find(cursor: Any) -> tuple[Execution, Rows] | None:
        # The row first: whatever led to its status is among the events that are read after it.
        row = executions.find(cursor, caller.tenant, id)
        if row is None:
            return None
        return row, executions.events(cursor, caller.tenant, id, after, limit)

    return await parts.pool.read(find) if EXECUTION_ID.fullmatch(id) else None
