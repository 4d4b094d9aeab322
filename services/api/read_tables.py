"""The read tables: the statements that write what the projector made of events.

They run in the loop's transaction, under the role that serves. Writing the same rows again changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client import Counter
from psycopg2.extras import execute_values

from services.api import commands, live, quota
from services.api.core import links, projection, steps
from services.api.core.projection import Projection
from services.contracts import file_names
from services.runtime import telemetry
from services.runtime.processor.types import Row

GAPS = Counter(
    "projector_parked",
    "Events that came before their predecessor",
    registry=telemetry.REGISTRY,
)


def write_rows(cursor: Any, rows: Sequence[Row]) -> None:
    """Write a batch's rows in the loop's transaction. Writing the same rows again changes nothing."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, []).append(_without_nul(row.values))
    opened = quota.changes(())
    newest = {values["state"].execution_id: values["state"] for values in by_kind.get("execution", ())}
    if newest:
        written = execute_values(
            cursor, _EXECUTIONS, [_execution(state) for state in newest.values()], fetch=True
        )
        opened.update(quota.changes(written))
    if found := by_kind.get("event"):
        execute_values(cursor, _EVENTS, found, _EVENT_TEMPLATE, page_size=500)
    if found := by_kind.get("word"):
        execute_values(cursor, _WORDS, found, _WORD_TEMPLATE, page_size=500)
    if found := by_kind.get("file"):
        _write_files(cursor, found)
    if found := by_kind.get("batches"):
        execute_values(cursor, _BATCHES, found, "(%(execution_id)s, %(body)s)", page_size=500)
    if found := by_kind.get("request"):
        execute_values(cursor, _REQUESTS, found, "(%(execution_id)s, %(body)s, %(channel)s)", page_size=500)
    for values in by_kind.get("parked", ()):
        GAPS.inc()
        cursor.execute(
            "UPDATE api.job_request SET parked = %s WHERE execution_id = %s",
            (values["count"], values["execution_id"]),
        )
    opened.update(commands.write_answers(cursor, by_kind.get("answer", ()), by_kind.get("rerun", ())))
    quota.note(cursor, opened)
    if newest:
        live.announce(cursor, newest)


def _without_nul(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A worker's message or another service's text may hold what PostgreSQL's text does not take."""
    if any(value.__class__ is str and "\0" in value for value in values.values()):
        return {name: _storable(value) if isinstance(value, str) else value for name, value in values.items()}
    return values


def _write_files(cursor: Any, found: Sequence[Mapping[str, Any]]) -> None:
    """Each file under a name of its own; those of one execution come in the order of their events."""
    wanted = [(values["execution_id"], values["name"]) for values in found]
    ids = list({id for id, _ in wanted})
    cursor.execute(_TAKEN, tuple(map(list, zip(*wanted, strict=True))))
    if cursor.fetchone() or len({*wanted}) < len(wanted):
        found = _distinct(cursor, ids, found)
    execute_values(cursor, _FILES, found, _FILE_TEMPLATE, page_size=500)
    cursor.execute(_PUBLISHED, (ids, file_names.MANIFESTS))
    listed = [(id, [links.path(id, name) for name in names], newest) for id, names, newest in cursor]
    if listed:
        execute_values(cursor, _DOWNLOADS, listed)


def _distinct(cursor: Any, ids: Sequence[str], found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The files that are not written yet, where two of an execution come under one name (file_names.free)."""
    names: dict[str, set[str]] = {id: set() for id in ids}
    known: set[tuple[str, str]] = set()
    cursor.execute(_KEYS, (ids,))
    for id, name, key in cursor.fetchall():
        names[id].add(name)
        known.add((id, key))
    new: list[Mapping[str, Any]] = []
    for values in found:
        id, key = values["execution_id"], values["key"]
        if (id, key) not in known:
            known.add((id, key))
            name = file_names.free(values["step"], values["name"], names[id])
            names[id].add(name)
            new.append({**values, "name": name})
    return new


_OPEN = "('pending', 'running', 'waiting')"
_EXECUTION_COLUMNS = (
    "execution_id, tenant, sequence, state, principal, name, job_type, tag, dataset_id, dataset_revision,"
    " submitted_at, updated_at, started_at, finished_at, steps, files, rows, bytes, errors, failure,"
    " err_message, rerun_of, reruns, incomplete, parked, owner, form, waiting, approvals, hooks"
)
_PROJECTED = (
    *("sequence", "state", "updated_at", "started_at", "finished_at", "steps", "files", "rows", "bytes"),
    *("errors", "failure", "err_message", "reruns", "incomplete", "parked"),
    *("owner", "form", "waiting", "approvals", "hooks"),
)
_EXECUTIONS = (
    f"INSERT INTO api.job_request AS known ({_EXECUTION_COLUMNS}) VALUES %s"  # noqa: S608
    f" ON CONFLICT (execution_id) DO UPDATE SET record = NULL,"
    # a rerun is known before its own events, with its original's revision
    " dataset_revision = coalesce(excluded.dataset_revision, known.dataset_revision),"
    f" {', '.join(f'{column} = excluded.{column}' for column in _PROJECTED)}"
    " WHERE known.sequence < excluded.sequence AND known.tenant = excluded.tenant"
    # whether it was open before, as the statement's snapshot has it, and whether it is now
    " RETURNING tenant, known.xmax <> 0 AND coalesce((SELECT old.state FROM api.job_request AS old"
    f"  WHERE old.execution_id = known.execution_id), 'pending') IN {_OPEN}, state IN {_OPEN}"
)
_EVENTS = (
    "INSERT INTO api.execution_event (execution_id, sequence, tenant, type, occurred_at, body) VALUES %s"
    " ON CONFLICT DO NOTHING"
)
_EVENT_TEMPLATE = "(%(execution_id)s, %(sequence)s, %(tenant)s, %(type)s, %(occurred_at)s, %(body)s)"
_WORDS = (
    "INSERT INTO api.step_event (execution_id, step_name, event_type, attempt, sequence, occurred_at, tenant)"
    " VALUES %s ON CONFLICT DO NOTHING"
)
_WORD_TEMPLATE = (
    "(%(execution_id)s, %(step_name)s, %(event_type)s, %(attempt)s, %(sequence)s, %(occurred_at)s,"
    " %(tenant)s)"
)
_TAKEN = """
    SELECT 1 FROM unnest(%s, %s) AS wanted (execution_id, name)
    JOIN api.file USING (execution_id, name) LIMIT 1
"""
_KEYS = "SELECT execution_id, name, blob_key FROM api.file WHERE execution_id = ANY(%s)"
_FILES = (
    "INSERT INTO api.file (execution_id, name, tenant, batch, rows, bytes, sha256, content_type, blob_key,"
    " published_at) VALUES %s ON CONFLICT DO NOTHING"
)
_FILE_TEMPLATE = (
    "(%(execution_id)s, %(name)s, %(tenant)s, %(batch)s, %(rows)s, %(bytes)s, %(sha256)s, %(content_type)s,"
    " %(key)s, %(published_at)s)"
)

_PUBLISHED = """
    SELECT execution_id, array_agg(name ORDER BY name), max(published_at) AT TIME ZONE 'UTC'
    FROM api.file WHERE execution_id = ANY(%s) AND name !~ %s GROUP BY execution_id
"""
_DOWNLOADS = """
    UPDATE api.job_request AS request SET download_urls = file.urls, dt_file_created = file.newest
    FROM (VALUES %s) AS file (execution_id, urls, newest) WHERE request.execution_id = file.execution_id
"""
_BATCHES = """
    UPDATE api.job_request AS request SET batch_filters = found.body::json
    FROM (VALUES %s) AS found (execution_id, body) WHERE request.execution_id = found.execution_id
"""
# Requests through api are known since they were submitted; those of other services only from here.
_REQUESTS = """
    UPDATE api.job_request AS request SET request_data = asked.body::json, requested_channel = asked.channel
    FROM (VALUES %s) AS asked (execution_id, body, channel)
    WHERE request.execution_id = asked.execution_id AND request.request_data IS NULL
"""
ERROR_CHARS_MAX = 100
LABEL_CHARS_MAX = 50


def _execution(state: Projection) -> tuple[Any, ...]:
    failure = None if state.failure is None else json.dumps(msgspec.to_builtins(state.failure))
    return (
        state.execution_id,
        state.tenant,
        state.sequence,
        state.status.value,
        *map(_storable, (state.principal, state.name, state.job_type)),
        short(state.tag) or "",
        state.dataset_id,
        state.dataset_revision,
        state.submitted_at,
        state.updated_at,
        state.started_at,
        state.finished_at,
        _json(steps.as_json(state.steps)),
        state.files,
        state.rows,
        state.bytes,
        json.dumps(list(state.errors)),
        failure,
        _error(state),
        state.rerun_of,
        json.dumps(state.reruns),
        state.incomplete,
        len(state.parked),
        state.owner,
        None if state.form is None else _json(state.form),
        None if (waiting := projection.waiting_json(state)) is None else _json(waiting),
        _json(state.approvals),
        _json(state.hooks),
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _error(state: Projection) -> str | None:
    """What `err_message` has room for (S1 1.21)."""
    message = state.failure.message if state.failure else state.errors[0]["message"] if state.errors else None
    return message and (_storable(message) or "")[:ERROR_CHARS_MAX]


def short(label: str | None) -> str | None:
    """A label as S1's columns have room for it; api itself refuses longer ones."""
    return label and (_storable(label) or "")[:LABEL_CHARS_MAX]


def _storable(text: str | None) -> str | None:
    # Requests of other services may hold what PostgreSQL's text does not take.
    return None if text is None else text.replace("\0", "\ufffd")
