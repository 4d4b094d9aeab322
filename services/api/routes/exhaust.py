"""S1's data-exhaust API: `job/request/submit`, `read`, `list` and `search`, with and without `/data/v3`.

A report of S1 is an export: its jobId names the dataset. All answers are S1's envelopes, errors included
(services/api/problems.py). `params.msgid` is the idempotency key, the tag belongs to one tenant.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from services.api import accepting, exhaust, idempotency, openapi, openapi_exhaust
from services.api.accepting import Identity
from services.api.bodies import read_json, reply
from services.api.core import exhaust as core
from services.api.core.exhaust import Asked, Job
from services.api.keys import Caller
from services.api.parts import AnyParts, Author, Parts, Viewer
from services.api.problems import envelope_name, invalid, not_found
from services.contracts import ids
from services.contracts.commands import JobRequested
from services.contracts.ids import EXECUTION_ID
from services.jobs.refused import Refused
from services.runtime import entropy

BODY_BYTES_MAX = 131_072
ROUTE = "POST job/request/submit"  # the same wish on either path
PREFIX = "/data/v3"

router = APIRouter(tags=["data exhaust"], responses=openapi_exhaust.FAILED)
Route = Callable[..., Awaitable[Response]]


def _on(method: str, path: str, **described: Any) -> Callable[[Route], Route]:
    """Register under both of S1's addresses; the longer one is described."""

    def register(route: Route) -> Route:
        router.add_api_route(PREFIX + path, route, methods=[method], **described)
        router.add_api_route(path, route, methods=[method], include_in_schema=False)
        return route

    return register


@_on(
    "POST",
    "/job/request/submit",
    operation_id="submitJobRequest",
    openapi_extra=openapi_exhaust.SUBMIT,
    responses={200: openapi.json_of("JobStatus", "committed: it will run, and end")},
)
async def submit(request: Request, caller: Author, parts: AnyParts) -> Response:
    """Ask for a report. The same msgid with the same request is the same one, whenever it is sent."""
    body = await read_json(request, BODY_BYTES_MAX)
    request.state.msgid = core.msgid_of(body)
    asked = core.read_submit(body)
    id = ids.execution_id(caller.tenant, caller.principal, ROUTE, asked.msgid)
    identity = Identity(id, asked.msgid, ids.body_hash(body["request"]), "params.msgid")
    if not await accepting.is_stored(parts, caller, identity):
        record = await _record(parts, caller, asked, id, _channel(request))
        stored = await accepting.store(parts, accepting.row(caller, record, identity.body_hash))
        if stored.body_hash != identity.body_hash:
            raise idempotency.conflict(identity.named)

    def find(cursor: Any) -> Any:
        return _status(cursor, parts, caller, exhaust.find(cursor, caller.tenant, asked.tag, id))

    return _answer(request, parts, await parts.pool.read(find), asked.ignored)


@_on(
    "GET",
    "/job/request/read/{tag}/{request_id}",
    operation_id="readJobRequest",
    responses={200: openapi.json_of("JobStatus", "as of now")},
)
async def read(tag: str, request_id: str, request: Request, caller: Viewer, parts: AnyParts) -> Response:
    """One report request, with links to its files once there are any."""

    def find(cursor: Any) -> Any:
        is_named = core.TAG.fullmatch(tag) and EXECUTION_ID.fullmatch(request_id)
        job = exhaust.find(cursor, caller.tenant, tag, request_id) if is_named else None
        return _status(cursor, parts, caller, job)

    found = await parts.pool.read(find)
    if found is None:
        raise not_found()
    return _answer(request, parts, found)


@_on(
    "GET",
    "/job/request/list/{tag}",
    operation_id="listJobRequests",
    responses={200: openapi.json_of("JobStatusList", "the newest ones, and the count of all")},
)
async def list_all(
    tag: str,
    request: Request,
    caller: Viewer,
    parts: AnyParts,
    limit: Annotated[int, Query(ge=1, le=core.LISTED_MAX, description="at most so many")] = core.LISTED_MAX,
) -> Response:
    """The report requests under a tag, newest first. A tag that the tenant never used has none."""

    def find(cursor: Any) -> Any:
        known = core.TAG.fullmatch(tag)
        return _statuses(
            cursor, parts, caller, *(exhaust.newest(cursor, caller.tenant, tag, limit) if known else (0, []))
        )

    return _answer(request, parts, await parts.pool.read(find))


@_on(
    "POST",
    "/job/request/search",
    operation_id="searchJobRequests",
    openapi_extra=openapi_exhaust.SEARCH,
    responses={200: openapi.json_of("JobStatusList", "the newest ones, and the count of all")},
)
async def search(request: Request, caller: Viewer, parts: AnyParts) -> Response:
    """Report requests of all the tenant's tags, by report, status, day and channel."""
    body = await read_json(request, BODY_BYTES_MAX)
    request.state.msgid = core.msgid_of(body)
    wanted = core.read_search(body)

    def find(cursor: Any) -> Any:
        return _statuses(cursor, parts, caller, *exhaust.search(cursor, caller.tenant, wanted))

    return _answer(request, parts, await parts.pool.read(find), wanted.ignored)


async def _record(parts: Parts, caller: Caller, asked: Asked, id: str, channel: str | None) -> JobRequested:
    definition = await accepting.definition(parts, caller, asked.job_id)
    if definition is None:
        raise invalid("request.jobId", f'unknown report "{asked.job_id}"; GET /v1/datasets lists them')
    record = core.job_requested(
        asked,
        execution_id=id,
        tenant=caller.tenant,
        principal=caller.principal,
        owner=caller.owner,
        channel=channel,
        definition=definition,
        now=parts.clock.now(),
    )
    try:
        accepting.check(parts, record)
    except Refused as refused:
        raise Refused(core.as_sent(refused.errors)) from refused
    return record


def _channel(request: Request) -> str | None:
    values = request.headers.getlist("x-channel-id")
    if values and (len(values) > 1 or not core.CHANNEL.fullmatch(values[0])):
        raise invalid("X-Channel-ID", "expected one header of 1 to 50 printable ASCII characters")
    return values[0] if values else None


def _status(cursor: Any, parts: Parts, caller: Caller, job: Job | None) -> Any:
    return None if job is None else _statuses(cursor, parts, caller, 1, [job])["jobs"][0]


def _statuses(cursor: Any, parts: Parts, caller: Caller, count: int, found: Sequence[Job]) -> Any:
    """In the database's thread: a list may have many links to sign."""
    files = exhaust.downloads(cursor, caller.tenant, found)
    now = parts.clock.now()
    statuses = [
        core.job_status(job, files.get(job.request_id, ()), parts.links, parts.public_url, now)
        for job in found
    ]
    return {"count": count, "jobs": statuses}


def _answer(request: Request, parts: Parts, result: Any, ignored: Sequence[str] = ()) -> Response:
    name = envelope_name(request)
    assert name is not None
    resmsgid = getattr(request.state, "msgid", None) or entropy.fresh_uuid()
    return reply(core.response(name, resmsgid, parts.clock.now(), result, ignored))
