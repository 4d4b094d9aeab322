"""Executions in the read tables. Every function takes a cursor and the caller's tenant."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.api.keys import Caller
from services.api.listing import Cursor, Filters
from services.contracts import names

_COLUMNS = (
    "execution_id, tenant, principal, name, job_type, nullif(tag, ''), dataset_id, dataset_revision,"
    " submitted_at, sequence, state, started_at, finished_at, steps, files, rows, bytes, errors,"
    " failure, rerun_of, reruns, incomplete, owner, form, waiting, approvals, hooks"
)


@dataclass(frozen=True, slots=True)
class Execution:
    """One row of api.job_request, without the record."""

    execution_id: str
    tenant: str
    principal: str | None
    name: str | None
    job_type: str | None
    tag: str | None
    dataset_id: str | None
    dataset_revision: int | None
    submitted_at: datetime
    sequence: int
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    steps: Any
    files: int
    rows: int
    bytes: int
    errors: Any
    failure: Any
    rerun_of: str | None
    reruns: list[str]
    incomplete: bool
    owner: str | None
    form: Any
    waiting: Any
    approvals: Any
    hooks: Any


@dataclass(frozen=True, slots=True)
class Word:
    """One row of api.step_event."""

    step_name: str
    event_type: str
    attempt: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class File:
    """One published file."""

    execution_id: str
    name: str
    tenant: str
    batch: str | None
    rows: int
    bytes: int
    sha256: str
    content_type: str
    blob_key: str
    link_generation: int


def find(cursor: Any, tenant: str, execution_id: str) -> Execution | None:
    """None: it does not exist, or is another tenant's."""
    cursor.execute(
        f"SELECT {_COLUMNS} FROM api.job_request WHERE execution_id = %s AND tenant = %s",  # noqa: S608
        (execution_id, tenant),
    )
    row = cursor.fetchone()
    return None if row is None else Execution(*row)


def words(cursor: Any, tenant: str, execution_id: str) -> list[Word]:
    """Every word about the steps of an execution, in the order in which they were said."""
    cursor.execute(
        "SELECT step_name, event_type, attempt, occurred_at FROM api.step_event"
        " WHERE execution_id = %s AND tenant = %s ORDER BY sequence",
        (execution_id, tenant),
    )
    return [Word(*row) for row in cursor.fetchall()]


# Nobody is asked twice, nor about what is their own; who is asked is said in the pipeline's step.
_ASKED = """
    waiting IS NOT NULL AND waiting -> 'approval' ->> 'step' IS NOT NULL
    AND NOT EXISTS (SELECT FROM json_array_elements_text(waiting -> 'approval' -> 'not_by') AS own(person)
                    WHERE lower(normalize(person, NFKC)) = ANY(%(same)s))
    AND (CASE WHEN coalesce(waiting -> 'approval' -> 'detail' ->> 'approvers', '[]') = '[]'
               AND coalesce(waiting -> 'approval' -> 'detail' ->> 'groups', '[]') = '[]'
         THEN %(may_any)s
         ELSE (waiting -> 'approval' -> 'detail' -> 'approvers')::jsonb ?| %(people)s
              OR (waiting -> 'approval' -> 'detail' -> 'groups')::jsonb ?| %(groups)s END)
    AND NOT EXISTS (
        SELECT FROM json_to_recordset(approvals) AS word(step text, decision text, by text, owner text,
                                                         at timestamptz)
        WHERE step = waiting -> 'approval' ->> 'step' AND decision = 'approved'
          AND at >= (waiting -> 'approval' ->> 'since')::timestamptz
          AND (lower(by) = ANY(%(same)s) OR lower(owner) = ANY(%(same)s)))
"""


def asking(
    cursor: Any, caller: Caller, may_any: bool, after: tuple[datetime, str] | None, limit: int
) -> list[Execution]:
    """Executions of the tenant that wait for the caller's approval, the oldest first."""
    people = [name for name in (caller.principal, caller.owner) if name is not None]
    given = {
        "tenant": caller.tenant,
        "people": people,
        "same": [*names.people(people)],
        "groups": list(caller.groups),
        "may_any": may_any,
    }
    later = "" if after is None else " AND (submitted_at, execution_id) > (%(at)s, %(id)s)"
    cursor.execute(
        f"SELECT {_COLUMNS} FROM api.job_request WHERE tenant = %(tenant)s AND {_ASKED}{later}"  # noqa: S608
        " ORDER BY submitted_at, execution_id LIMIT %(limit)s",
        {**given, "limit": limit, "at": after and after[0], "id": after and after[1]},
    )
    return [Execution(*row) for row in cursor.fetchall()]


def body_hash(cursor: Any, tenant: str, execution_id: str) -> str | None:
    """The hash of the body that was stored under this id."""
    cursor.execute(
        "SELECT body_hash FROM api.job_request WHERE execution_id = %s AND tenant = %s",
        (execution_id, tenant),
    )
    row = cursor.fetchone()
    return None if row is None else row[0]


def newest(cursor: Any, tenant: str, wanted: Filters, before: Cursor | None, limit: int) -> list[Execution]:
    """A page of the tenant's executions that pass the filters, newest first."""
    conditions, values = wanted.conditions()
    if before is not None:
        conditions.append("(submitted_at, execution_id) < (%s, %s)")
        values += (before.submitted_at, before.execution_id)
    cursor.execute(
        f"SELECT {_COLUMNS} FROM api.job_request WHERE {' AND '.join(['tenant = %s', *conditions])}"  # noqa: S608
        " ORDER BY submitted_at DESC, execution_id DESC LIMIT %s",
        (tenant, *values, limit),
    )
    return [Execution(*row) for row in cursor.fetchall()]


def events(cursor: Any, tenant: str, execution_id: str, after: int, limit: int) -> list[tuple[int, str]]:
    """The tenant's events of an execution above a sequence, as (sequence, JSON text)."""
    cursor.execute(
        "SELECT sequence, body::text FROM api.execution_event"
        " WHERE execution_id = %s AND tenant = %s AND sequence > %s ORDER BY sequence LIMIT %s",
        (execution_id, tenant, after, limit),
    )
    return [(sequence, body) for sequence, body in cursor.fetchall()]


FILE_COLUMNS = (
    "execution_id, name, tenant, batch, rows, bytes, sha256, content_type, blob_key, link_generation"
)


def files(cursor: Any, tenant: str, execution_id: str) -> list[File]:
    """The tenant's published files of an execution, in order of name."""
    cursor.execute(
        f"SELECT {FILE_COLUMNS} FROM api.file"  # noqa: S608
        " WHERE execution_id = %s AND tenant = %s ORDER BY name",
        (execution_id, tenant),
    )
    return [File(*row) for row in cursor.fetchall()]
