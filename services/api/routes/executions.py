"""Reading executions: one, and the list. Another tenant's looks like one that does not exist."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from services.api import executions, openapi, views
from services.api.bodies import reply
from services.api.executions import Cursor, Execution, File
from services.api.paging import CursorText, Limit, page
from services.api.parts import AnyParts, Viewer
from services.api.problems import invalid, not_found
from services.contracts.ids import EXECUTION_ID

ROUTE = "/v1/executions"

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


def _find(cursor: Any, tenant: str, id: str) -> Execution | None:
    return executions.find(cursor, tenant, id) if EXECUTION_ID.fullmatch(id) else None
