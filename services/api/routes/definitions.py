"""/v1/datasets, /v1/pipelines: definitions. A PUT makes an immutable revision; the same body makes none."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from services.api import definitions, openapi, views
from services.api.bodies import read_json_or_yaml, reply
from services.api.core import etags
from services.api.core.submission import ID_RULE
from services.api.definitions import Conditions, Name, Revision
from services.api.keys import Caller
from services.api.kinds import KINDS, Kind
from services.api.paging import CursorText, Limit, page
from services.api.parts import AnyParts, Operator, Parts, Viewer
from services.api.problems import invalid, not_found
from services.contracts.names import DEFINITION_ID
from services.jobs import sources

BODY_BYTES_MAX = 262_144

Id = Annotated[str, Path(description=f"the definition's id: {ID_RULE}")]
IfMatch = Annotated[str | None, Header(description="write only over this revision")]
IfNoneMatch = Annotated[str | None, Header(description="`*`: only create")]
AtRevision = Annotated[int | None, Query(ge=1, le=2**62, description="default: the current one")]


def routes_of(kind: Kind) -> APIRouter:
    """The routes of one kind."""
    router = APIRouter(prefix=kind.route, tags=[kind.plural], responses=openapi.PROBLEMS)
    _add_writes(router, kind)
    _add_reads(router, kind)
    return router


def _add_writes(router: APIRouter, kind: Kind) -> None:
    @router.put(
        "/{id}",
        operation_id=f"put{kind.title}",
        summary=f"Create or replace a {kind.name}.",
        openapi_extra=openapi.DEFINITION_BODY,
        responses={
            201: openapi.json_of("Definition", "created"),
            200: openapi.json_of("Definition", "stored"),
        },
    )
    async def put(
        id: Id,
        request: Request,
        caller: Operator,
        parts: AnyParts,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        return await _put(kind, id, request, caller, parts, Conditions(if_match, if_none_match))

    @router.delete(
        "/{id}",
        operation_id=f"delete{kind.title}",
        summary=f"Remove a {kind.name}; executions that have begun keep the revision they started with.",
        status_code=204,
    )
    async def delete(id: Id, caller: Operator, parts: AnyParts, if_match: IfMatch = None) -> Response:
        return await _delete(kind, id, caller, parts, Conditions(if_match))


def _add_reads(router: APIRouter, kind: Kind) -> None:
    @router.get(
        "/{id}",
        operation_id=f"get{kind.title}",
        summary=f"One {kind.name}, current or at a revision.",
        responses={
            200: openapi.json_of("Definition", "the revision"),
            304: {"description": "the revision that If-None-Match names"},
        },
    )
    async def get(
        id: Id,
        caller: Viewer,
        parts: AnyParts,
        revision: AtRevision = None,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        return await _get(kind, id, caller, parts, revision, if_none_match)

    @router.get(
        "",
        operation_id=f"list{kind.title}s",
        summary=f"The {kind.plural}, each in its current revision.",
        responses={200: openapi.json_of("DefinitionPage", "in order of id")},
    )
    async def list_all(
        caller: Viewer, parts: AnyParts, limit: Limit = 50, cursor: CursorText = None
    ) -> Response:
        return await _list(kind, caller, parts, limit, cursor)

    @router.get(
        "/{id}/revisions",
        operation_id=f"list{kind.title}Revisions",
        summary=f"All revisions of a {kind.name}, the newest first, deletions included.",
        responses={200: openapi.json_of("RevisionPage", "the newest first")},
    )
    async def list_revisions(
        id: Id, caller: Viewer, parts: AnyParts, limit: Limit = 50, cursor: CursorText = None
    ) -> Response:
        return await _revisions(kind, id, caller, parts, limit, cursor)


async def _put(
    kind: Kind, id: str, request: Request, caller: Caller, parts: Parts, conditions: Conditions
) -> Response:
    if not DEFINITION_ID.fullmatch(id):
        raise invalid("id", f"expected {ID_RULE}")
    sent = await read_json_or_yaml(request, BODY_BYTES_MAX, parts.checking.read)
    name = Name(caller.tenant, kind.name, id)

    def store(cursor: Any) -> tuple[Revision, bool]:
        body = kind.prepare(cursor, caller.tenant, sent, parts.checking.check)
        sources.check(parts.source_tenants, caller.tenant, kind.sources(body))
        return definitions.put(cursor, name, body, caller.principal, conditions)

    async with parts.checking.turn():
        row, is_new = await parts.pool.write(store)
    parts.wake_relay()
    headers = {"ETag": row.etag, **({"Location": f"{kind.route}/{id}"} if is_new else {})}
    return reply(views.definition(row), 201 if is_new else 200, headers)


async def _get(
    kind: Kind, id: str, caller: Caller, parts: Parts, revision: int | None, if_none_match: str | None
) -> Response:
    name = Name(caller.tenant, kind.name, id)

    def find(cursor: Any) -> Revision | None:
        if not DEFINITION_ID.fullmatch(id):
            return None
        return (
            definitions.current(cursor, name) if revision is None else definitions.at(cursor, name, revision)
        )

    row = await parts.pool.read(find)
    if row is None:
        raise not_found()
    if etags.none_matched(if_none_match, row.etag):
        return Response(status_code=304, headers={"ETag": row.etag})
    return reply(views.definition(row), headers={"ETag": row.etag})


async def _list(kind: Kind, caller: Caller, parts: Parts, limit: int, cursor: str | None) -> Response:
    if cursor is not None and not DEFINITION_ID.fullmatch(cursor):
        raise invalid("cursor", "expected a cursor of an earlier page")
    rows = await parts.pool.read(
        lambda database: definitions.listed(database, caller.tenant, kind.name, cursor or "", limit + 1)
    )
    more = rows[limit - 1].id if len(rows) > limit else None
    return page(kind.route, [views.definition(row) for row in rows[:limit]], limit, more)


async def _revisions(
    kind: Kind, id: str, caller: Caller, parts: Parts, limit: int, cursor: str | None
) -> Response:
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise invalid("cursor", "expected a cursor of an earlier page")
    if not DEFINITION_ID.fullmatch(id):
        raise not_found()
    name, before = Name(caller.tenant, kind.name, id), int(cursor or 2**62)
    rows = await parts.pool.read(lambda database: definitions.revisions(database, name, before, limit + 1))
    if not rows and cursor is None:
        raise not_found()
    more = str(rows[limit - 1].revision) if len(rows) > limit else None
    return page(f"{kind.route}/{id}/revisions", [views.revision(row) for row in rows[:limit]], limit, more)


async def _delete(kind: Kind, id: str, caller: Caller, parts: Parts, conditions: Conditions) -> Response:
    name = Name(caller.tenant, kind.name, id)
    found = DEFINITION_ID.fullmatch(id) is not None and await parts.pool.write(
        lambda cursor: definitions.delete(cursor, name, caller.principal, conditions)
    )
    if not found:
        raise not_found()
    parts.wake_relay()
    return Response(status_code=204)


router = APIRouter()
for _kind in KINDS.values():
    router.routes.extend(routes_of(_kind).routes)
