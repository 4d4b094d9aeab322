"""Reading executions: one, and the list. Another tenant's looks like one that does not exist."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AfterValidator, BeforeValidator

from services.api import executions, openapi, views
from services.api.bodies import reply
from services.api.executions import Execution, File
from services.api.listing import Cursor, Filters
from services.api.paging import CursorText, Limit, page
from services.api.parts import AnyParts, Parts, Viewer
from services.api.problems import invalid, not_found
from services.contracts.ids import EXECUTION_ID
from services.contracts.status import Status
from services.jobs.fields import clean, listed, storable
from services.jobs.values import EXPECTED, ColumnType, instant

ROUTE = "/v1/executions"

_PARAMETERS = frozenset({field.name for field in fields(Filters)} - {"statuses"}) | {
    "status",
    "limit",
    "cursor",
}

router = APIRouter(prefix=ROUTE, tags=["executions"], responses=openapi.PROBLEMS)
Id = Annotated[str, Path(description="40 hex digits, as answered to the submit")]


def _storable(text: str) -> str:
    if not storable(text):
        raise ValueError("expected text without NUL")
    return text


Text = Annotated[
    str | None, Query(min_length=1, max_length=200), AfterValidator(lambda t: t and _storable(t))
]


def _instant(text: str) -> datetime:
    if (found := instant(text)) is None:
        raise ValueError(f"expected {EXPECTED[ColumnType.TIMESTAMP]}")
    return found


Instant = Annotated[datetime, BeforeValidator(_instant)]


def refuse_unknown(request: Request, known: Sequence[str]) -> None:
    """A filter with a slip in its name would show everything. Raises Problem."""
    unknown = sorted({*request.query_params}.difference(known))
    if unknown:
        raise invalid(clean(unknown[0]), f"unknown parameter; known: {listed(known)}")


def cursor_of(text: str | None, wanted: Filters) -> Cursor | None:
    """Where the former page of this list ended. Raises Problem."""
    try:
        return None if text is None else Cursor.parse(text, wanted)
    except ValueError as error:
        raise invalid("cursor", str(error)) from None


def next_cursor(rows: Sequence[Execution], limit: int, wanted: Filters) -> str | None:
    """Where the page of `limit` ends, when one row more was read; None: it is the last one."""
    if len(rows) <= limit:
        return None
    last = rows[limit - 1]
    return Cursor(last.submitted_at, last.execution_id).text(wanted)


async def newest(
    parts: Parts, tenant: str, wanted: Filters, cursor: str | None, limit: int
) -> tuple[list[Execution], str | None]:
    """A page of the tenant's executions, and the cursor of the next one. Raises Problem."""
    before = cursor_of(cursor, wanted)
    rows = await parts.pool.read(
        lambda database: executions.newest(database, tenant, wanted, before, limit + 1)
    )
    return rows[:limit], next_cursor(rows, limit, wanted)


def _filters(
    request: Request,
    status: Annotated[list[Status] | None, Query(description="one of them; may be repeated")] = None,
    job_type: Text = None,
    requester: Text = None,
    tag: Text = None,
    submitted_after: Annotated[Instant | None, Query(description="then or later")] = None,
    submitted_before: Annotated[Instant | None, Query(description="before then")] = None,
    pipeline: Text = None,
) -> Filters:
    refuse_unknown(request, sorted(_PARAMETERS))
    statuses = tuple(sorted({one.value for one in status or ()}))
    return Filters(statuses, job_type, requester, tag, submitted_after, submitted_before, pipeline)


@router.get(
    "", operation_id="listExecutions", responses={200: openapi.json_of("ExecutionPage", "newest first")}
)
async def list_all(
    caller: Viewer,
    parts: AnyParts,
    wanted: Annotated[Filters, Depends(_filters)],
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Response:
    """The tenant's executions that pass all filters given, newest first."""
    rows, more = await newest(parts, caller.tenant, wanted, cursor, limit)
    return page(ROUTE, [views.summary(row) for row in rows], limit, more, wanted.query())


@router.get("/{id}", operation_id="getExecution", responses={200: openapi.json_of("Execution", "as of now")})
async def get(id: Id, caller: Viewer, parts: AnyParts) -> Response:
    """One execution: status, steps, progress, files with links that expire, errors."""

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
