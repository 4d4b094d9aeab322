"""Definitions in the database: immutable revisions, the highest one is current.

Every function takes the cursor of the caller's transaction. A write also puts `definition.state` into the
outbox; revisions of one definition are written one after the other, under a lock of their own.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.api.core import etags
from services.api.problems import Problem
from services.contracts import envelope, ids
from services.contracts.commands import DefinitionState, definition_key
from services.runtime import outbox, schemas

TOPIC = "definition.state"


@dataclass(frozen=True, slots=True)
class Name:
    """Which definition."""

    tenant: str
    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision as stored."""

    id: str
    revision: int
    body: Any
    body_hash: str
    etag: str
    changed_at: datetime
    changed_by: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Conditions:
    """`If-Match` and `If-None-Match` of a write, as sent."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, current: Revision | None) -> None:
        """Raises Problem (412). Weak tags never match (RFC 9110, 13.1.1)."""
        etag = None if current is None else current.etag
        found = "none exists" if etag is None else f"it is at {etag}"
        if self.if_match is not None and not etags.matched(self.if_match, etag):
            raise Problem("precondition-failed", f"If-Match names another revision: {found}")
        if etags.none_matched(self.if_none_match, etag):
            raise Problem("precondition-failed", f"If-None-Match names this revision: {found}")


_COLUMNS = "id, revision, body, body_hash, etag, changed_at, changed_by, deleted"


def current(cursor: Any, name: Name) -> Revision | None:
    """The current revision, unless it is a deletion."""
    latest = _latest(cursor, name)
    return None if latest is None or latest.deleted else latest


def at(cursor: Any, name: Name, revision: int) -> Revision | None:
    """One revision, whether current or not."""
    cursor.execute(
        f"SELECT {_COLUMNS} FROM api.definition"  # noqa: S608
        " WHERE tenant = %s AND kind = %s AND id = %s AND revision = %s AND NOT deleted",
        (name.tenant, name.kind, name.id, revision),
    )
    row = cursor.fetchone()
    return None if row is None else Revision(*row)


def listed(cursor: Any, tenant: str, kind: str, after: str, limit: int) -> list[Revision]:
    """The current revisions with ids above `after`, in order of id."""
    cursor.execute(
        f"SELECT {_COLUMNS} FROM (SELECT DISTINCT ON (id) {_COLUMNS} FROM api.definition"  # noqa: S608
        " WHERE tenant = %s AND kind = %s AND id > %s ORDER BY id, revision DESC) AS latest"
        " WHERE NOT deleted ORDER BY id LIMIT %s",
        (tenant, kind, after, limit),
    )
    return [Revision(*row) for row in cursor.fetchall()]


def revisions(cursor: Any, name: Name, before: int, limit: int) -> list[Revision]:
    """Every revision below `before`, deletions included, the newest first."""
    cursor.execute(
        f"SELECT {_COLUMNS} FROM api.definition"  # noqa: S608
        " WHERE tenant = %s AND kind = %s AND id = %s AND revision < %s ORDER BY revision DESC LIMIT %s",
        (name.tenant, name.kind, name.id, before, limit),
    )
    return [Revision(*row) for row in cursor.fetchall()]


def put(cursor: Any, name: Name, body: Any, by: str, conditions: Conditions) -> tuple[Revision, bool]:
    """The revision that holds `body`, and whether the definition is new. The same body makes no revision."""
    latest = _lock(cursor, name)
    known = None if latest is None or latest.deleted else latest
    conditions.check(known)
    body_hash = ids.body_hash(body)
    if known is not None and known.body_hash == body_hash:
        return known, False
    return _append(cursor, name, latest, body, body_hash, by, deleted=False), known is None


def change(
    cursor: Any, name: Name, edit: Callable[[Any], Any], by: str, conditions: Conditions
) -> Revision | None:
    """The revision whose body is what `edit` makes of the current one; None when there is none.

    Two that change at once follow one another: no edit is made of a body that is no longer current. What
    `edit` raises is raised; None of it: there is nothing to change.
    """
    known = _lock(cursor, name)
    known = None if known is None or known.deleted else known
    conditions.check(known)
    body = None if known is None else edit(known.body)
    if known is None or body is None:
        return None
    body_hash = ids.body_hash(body)
    if known.body_hash == body_hash:
        return known
    return _append(cursor, name, known, body, body_hash, by, deleted=False)


def delete(cursor: Any, name: Name, by: str, conditions: Conditions) -> bool:
    """Append the revision that says deleted; False when there was nothing to delete."""
    latest = _lock(cursor, name)
    known = None if latest is None or latest.deleted else latest
    conditions.check(known)
    if known is None:
        return False
    _append(cursor, name, known, None, ids.body_hash(None), by, deleted=True)
    return True


def _lock(cursor: Any, name: Name) -> Revision | None:
    key = definition_key(name.kind, name.tenant, name.id)
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (key,))
    return _latest(cursor, name)


def _latest(cursor: Any, name: Name) -> Revision | None:
    cursor.execute(
        f"SELECT {_COLUMNS} FROM api.definition WHERE tenant = %s AND kind = %s AND id = %s"  # noqa: S608
        " ORDER BY revision DESC LIMIT 1",
        (name.tenant, name.kind, name.id),
    )
    row = cursor.fetchone()
    return None if row is None else Revision(*row)


def _append(
    cursor: Any, name: Name, former: Revision | None, body: Any, body_hash: str, by: str, *, deleted: bool
) -> Revision:
    revision = 1 if former is None else former.revision + 1
    etag = f'"{revision}-{body_hash[:16]}"'
    cursor.execute(
        "INSERT INTO api.definition"
        " (tenant, kind, id, revision, body, body_hash, etag, changed_at, changed_by, deleted)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, clock_timestamp(), %s, %s) RETURNING changed_at",
        (name.tenant, name.kind, name.id, revision, json.dumps(body), body_hash, etag, by, deleted),
    )
    row = Revision(name.id, revision, body, body_hash, etag, cursor.fetchone()[0], by, deleted)
    outbox.add(cursor, "api", [_record(name, row)])
    return row


def _record(name: Name, row: Revision) -> envelope.Outgoing:
    record = DefinitionState(
        kind=name.kind,
        tenant=name.tenant,
        id=name.id,
        revision=row.revision,
        changed_at=row.changed_at,
        deleted=row.deleted,
        body=row.body,
    )
    return envelope.command(record, schemas.codec().encode(record))


def publish_again(cursor: Any) -> int:
    """Put the current revision of every definition into the outbox: their topic's log was lost."""
    cursor.execute(
        f"SELECT DISTINCT ON (tenant, kind, id) tenant, kind, {_COLUMNS} FROM api.definition"  # noqa: S608
        " ORDER BY tenant, kind, id, revision DESC"
    )
    rows: Sequence[Any] = cursor.fetchall()
    records = [_record(Name(tenant, kind, row[0]), Revision(*row)) for tenant, kind, *row in rows]
    if records:
        outbox.add(cursor, "api", records)
    return len(records)
