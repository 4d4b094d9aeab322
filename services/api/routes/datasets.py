"""/v1/datasets: what may be exported. A PUT makes a new immutable revision; the same body makes none."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from services.api import definitions, openapi, views
from services.api.bodies import read_json_or_yaml, reply
from services.api.core.submission import ID_RULE
from services.api.definitions import Conditions, Name, Revision
from services.api.paging import CursorText, Limit, page
from services.api.parts import AnyParts, Operator, Viewer
from services.api.problems import invalid, not_found
from services.contracts.names import DEFINITION_ID
from services.jobs import dataset as datasets

KIND = "dataset"
BODY_BYTES_MAX = 262_144
ROUTE = "/v1/datasets"

router = APIRouter(prefix=ROUTE, tags=["datasets"], responses=openapi.PROBLEMS)
Id = Annotated[str, Path(description=f"the dataset's id: {ID_RULE}")]
IfMatch = Annotated[str | None, Header(description="write only over this revision")]
IfNoneMatch = Annotated[str | None, Header(description="`*`: only create")]


@router.put(
    "/{id}",
    operation_id="putDataset",
    openapi_extra=openapi.DATASET_BODY,
    responses={201: openapi.json_of("Definition", "created"), 200: openapi.json_of("Definition", "stored")},
)
async def put(
    id: Id,
    request: Request,
    caller: Operator,
    parts: AnyParts,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Create or replace a dataset."""
    if not DEFINITION_ID.fullmatch(id):
        raise invalid("id", f"expected {ID_RULE}")
    body = await read_json_or_yaml(request, BODY_BYTES_MAX)
    datasets.parse(body)
    conditions = Conditions(if_match, if_none_match)
    name = Name(caller.tenant, KIND, id)
    row, is_new = await parts.pool.write(
        lambda cursor: definitions.put(cursor, name, body, caller.principal, conditions)
    )
    parts.wake_relay()
    headers = {"ETag": row.etag, **({"Location": f"{ROUTE}/{id}"} if is_new else {})}
    return reply(views.definition(row), 201 if is_new else 200, headers)


@router.get(
    "/{id}",
    operation_id="getDataset",
    responses={
        200: openapi.json_of("Definition", "the revision"),
        304: {"description": "the revision that If-None-Match names"},
    },
)
async def get(
    id: Id,
    caller: Viewer,
    parts: AnyParts,
    revision: Annotated[int | None, Query(ge=1, le=2**62, description="default: the current one")] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """One dataset, current or at a revision."""
    name = Name(caller.tenant, KIND, id)

    def find(cursor: Any) -> Revision | None:
        if not DEFINITION_ID.fullmatch(id):
            return None
        return (
            definitions.current(cursor, name) if revision is None else definitions.at(cursor, name, revision)
        )

    row = await parts.pool.read(find)
    if row is None:
        raise not_found()
    if if_none_match is not None and row.etag in [tag.strip() for tag in if_none_match.split(",")]:
        return Response(status_code=304, headers={"ETag": row.etag})
    return reply(views.definition(row), headers={"ETag": row.etag})


@router.get(
    "", operation_id="listDatasets", responses={200: openapi.json_of("DefinitionPage", "in order of id")}
)
async def list_all(caller: Viewer, parts: AnyParts, limit: Limit = 50, cursor: CursorText = None) -> Response:
    """The current revisions."""
    if cursor is not None and not DEFINITION_ID.fullmatch(cursor):
        raise invalid("cursor", "expected a cursor of an earlier page")
    rows = await parts.pool.read(
        lambda database: definitions.listed(database, caller.tenant, KIND, cursor or "", limit + 1)
    )
    more = rows[limit - 1].id if len(rows) > limit else None
    return page(ROUTE, [views.definition(row) for row in rows[:limit]], limit, more)


@router.delete("/{id}", operation_id="deleteDataset", status_code=204)
async def delete(id: Id, caller: Operator, parts: AnyParts, if_match: IfMatch = None) -> Response:
    """Remove a dataset; executions that have begun keep the revision they started with."""
    name = Name(caller.tenant, KIND, id)
    conditions = Conditions(if_match)
    found = DEFINITION_ID.fullmatch(id) is not None and await parts.pool.write(
        lambda cursor: definitions.delete(cursor, name, caller.principal, conditions)
    )
    if not found:
        raise not_found()
    parts.wake_relay()
    return Response(status_code=204)
