"""/v1/requests: service requests (S3), which are executions of pipelines: create, read, list."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from services.api import executions, idempotency, openapi, openapi_pipelines, request_views
from services.api.bodies import read_json, reply
from services.api.core import submission
from services.api.core.service_requests import STATUSES
from services.api.executions import Execution, File, Word
from services.api.keys import Role
from services.api.listing import Filters
from services.api.paging import CursorText, Limit, page
from services.api.parts import AnyParts, Author, Viewer
from services.api.problems import invalid, not_found
from services.api.request_views import ROUTE
from services.api.routes import submit
from services.api.routes.executions import Instant, Text, cursor_of, newest, next_cursor, refuse_unknown
from services.contracts.ids import EXECUTION_ID
from services.jobs.fields import clean, listed

CREATE = f"POST {ROUTE}"
_PARAMETERS = (
    "pipeline",
    "status",
    "requester",
    "tag",
    "submitted_after",
    "submitted_before",
    "limit",
    "cursor",
)

router = APIRouter(tags=["requests"], responses=openapi.PROBLEMS)
Id = Annotated[str, Path(description="40 hex digits, as answered to the creation")]


@router.post(
    ROUTE,
    operation_id="createRequest",
    status_code=202,
    openapi_extra=openapi_pipelines.REQUEST_BODY,
    responses={202: openapi.json_of("RequestAccepted", "committed: it runs, or waits for start")},
)
async def create(request: Request, caller: Author, parts: AnyParts) -> Response:
    """Ask for a pipeline with values for its form. The same Idempotency-Key and body is the same request."""
    key = idempotency.key_of(request)
    body = await read_json(request, submit.BODY_BYTES_MAX)
    id = await submit.take(parts, caller, submission.read_request(body), key, body, CREATE)
    view = request_views.accepted(id)
    return reply(view, 202, {"Location": view["links"]["self"]})


def _filters(
    request: Request,
    pipeline: Text = None,
    status: Annotated[list[str] | None, Query(description="one of S3's words; may be repeated")] = None,
    requester: Text = None,
    tag: Text = None,
    submitted_after: Annotated[Instant | None, Query(description="then or later")] = None,
    submitted_before: Annotated[Instant | None, Query(description="before then")] = None,
) -> Filters:
    refuse_unknown(request, _PARAMETERS)
    for word in status or ():
        if word not in STATUSES:
            raise invalid("status", f"unknown word {clean(word)}; known: {listed(STATUSES)}")
    statuses = tuple(sorted({own for word in status or () for own in STATUSES[word]}))
    return Filters(statuses, "pipeline", requester, tag, submitted_after, submitted_before, pipeline)


@router.get(
    ROUTE, operation_id="listRequests", responses={200: openapi.json_of("RequestPage", "newest first")}
)
async def list_all(
    request: Request,
    caller: Viewer,
    parts: AnyParts,
    wanted: Annotated[Filters, Depends(_filters)],
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Response:
    """The tenant's service requests that pass all filters given, newest first."""
    rows, more = await newest(parts, caller.tenant, wanted, cursor, limit)
    words = [("status", word) for word in dict.fromkeys(request.query_params.getlist("status"))]
    filters = [*words, *replace(wanted, statuses=(), job_type=None).query()]
    return page(ROUTE, [request_views.summary(row) for row in rows], limit, more, filters)


@router.get(
    f"{ROUTE}/{{id}}", operation_id="getRequest", responses={200: openapi.json_of("Request", "as of now")}
)
async def get(id: Id, caller: Viewer, parts: AnyParts) -> Response:
    """One service request: status and steps in S3's words, what it waits for, decisions, values, files."""

    def find(cursor: Any) -> tuple[Execution, list[Word], list[File]] | None:
        row = executions.find(cursor, caller.tenant, id) if EXECUTION_ID.fullmatch(id) else None
        if row is None or row.job_type != submission.PIPELINE:
            return None
        words = executions.words(cursor, caller.tenant, id)
        return row, words, executions.files(cursor, caller.tenant, id)

    found = await parts.pool.read(find)
    if found is None:
        raise not_found()
    return reply(request_views.request(*found, parts.links, parts.public_url, parts.clock.now()))


@router.get(
    "/v1/approvals",
    operation_id="listApprovals",
    responses={200: openapi.json_of("ApprovalPage", "the oldest first")},
)
async def list_approvals(
    caller: Viewer, parts: AnyParts, limit: Limit = 50, cursor: CursorText = None
) -> Response:
    """What waits for the caller's approval: they may decide it, have not yet, and did not ask for it."""
    after = cursor_of(cursor, Filters())
    may_any = caller.role.covers(Role.OPERATOR)
    since = None if after is None else (after.submitted_at, after.execution_id)
    rows = await parts.pool.read(
        lambda database: executions.asking(database, caller, may_any, since, limit + 1)
    )
    more = next_cursor(rows, limit, Filters())
    return page("/v1/approvals", [request_views.approval(row) for row in rows[:limit]], limit, more)
