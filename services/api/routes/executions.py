"""Reading executions: one, its events, and the list. Another tenant's looks like one that does not exist."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from services.api import executions, openapi, views
from services.api.bodies import reply
from services.api.executions import Cursor, Execution, File
from services.api.paging import CursorText, Limit, page
from services.api.parts import AnyParts, Viewer
from services.api.problems import invalid, not_found
from services.contracts.ids import EXECUTION_ID

ROUTE = "/v1/executions"
EVENTS_MAX = 1000

router = APIRouter(prefix=ROUTE, tags=["executions"], responses=openapi.PROBLEMS)
Id = Annotated[str, Path(description="40 hex digits, as answered to the submit")]


@router.get(
    "", operation_id="listExecutions", responses={200: openapi.json_of("ExecutionPage", "newest first")}
)
async def list_all(caller: Viewer, parts: AnyParts, limit: Limit = 50, cursor: CursorText = None) -> Response:
    """The tenant's executions, newest first."""
    try:
        before = None if cursor is None else Cursor.parse(cursor)
    except ValueError as error:
        raise invalid("cursor", str(error)) from None
    rows = await parts.pool.read(
        lambda database: executions.newest(database, caller.tenant, before, limit + 1)
    )
    last = rows[limit - 1] if len(rows) > limit else None
    more = None if last is None else Cursor(last.submitted_at, last.execution_id).text()
    return page(ROUTE, [views.summary(row) for row in rows[:limit]], limit, more)


@router.get("/{id}", operation_id="getExecution", responses={200: openapi.json_of("Execution", "as of now")})
async def get(id: Id, caller: Viewer, parts: AnyParts) -> Response:
    """Status, steps, progress, files with links that expire, errors."""

    def find(cursor: Any) -> tuple[Execution, list[File]] | None:
        row = _find(cursor, caller.tenant, id)
        return None if row is None else (row, executions.files(cursor, caller.tenant, id))

    found = await parts.pool.read(find)
    if found is None:
        raise not_found()
    row, files = found
    return reply(views.execution(row, files, parts.links, parts.public_url, parts.clock.now()))


@router.get(
    "/{id}/events",
    operation_id="listExecutionEvents",
    responses={200: openapi.json_of("EventPage", "in order of sequence")},
)
async def events(
    id: Id,
    caller: Viewer,
    parts: AnyParts,
    after: Annotated[int, Query(ge=0, le=2**62, description="the `last` of the former answer")] = 0,
    limit: Annotated[int, Query(ge=1, le=EVENTS_MAX)] = EVENTS_MAX,
) -> Response:
    """`{events, last}`: what happened, without gaps; ask again with `after=<last>` to follow."""

    def find(cursor: Any) -> list[tuple[int, str]] | None:
        if _find(cursor, caller.tenant, id) is None:
            return None
        return executions.events(cursor, caller.tenant, id, after, limit)

    rows = await parts.pool.read(find)
    if rows is None:
        raise not_found()
    last = rows[-1][0] if rows else after
    body = f'{{"events":[{",".join(text for _, text in rows)}],"last":{last}}}'
    return Response(body, media_type="application/json")


def _find(cursor: Any, tenant: str, id: str) -> Execution | None:
    return executions.find(cursor, tenant, id) if EXECUTION_ID.fullmatch(id) else None
