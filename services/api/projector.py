"""Read tables from `execution.events`: the handler that the loop drives, and the statements of its rows.

Events are applied in order of `sequence`. One that comes before its predecessor is parked in the execution's
state, other executions go on; one that has been seen changes nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import Counter
from psycopg2.extras import execute_values

from services.api import commands, live
from services.api.core import exhaust, projection, steps
from services.api.core.projection import Projection
from services.contracts import events, public
from services.contracts.codec import Codec
from services.contracts.errors import Undecodable
from services.contracts.events import Event, type_of
from services.contracts.ids import EXECUTION_ID
from services.runtime import telemetry
from services.runtime.processor.handler import Handler
from services.runtime.processor.types import Change, Input, Poison, Routed, Row

PARKED_MAX = 1000
SEQUENCE = re.compile(rb"[1-9][0-9]{0,17}")

GAPS = Counter(
    "projector_parked",
    "Events that came before their predecessor",
    registry=telemetry.REGISTRY,
)


class Damaged(Struct, frozen=True, gc=False):
    """An event of which only the sequence, from its header, is known."""

    sequence: int
    error: str


class Projector(Handler[Projection]):
    """The loop's handler over executions, keyed by execution id."""

    name = "api"
    inputs: tuple[str, ...] = ("execution.events",)

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def route(self, record: Input) -> Routed | None:
        """An event that cannot be decoded still counts as seen, if its headers say which one it was."""
        key = (record.key or b"").decode(errors="replace")
        try:
            event = self._event(record.topic, record.value)
        except Undecodable as error:
            sequence = dict(record.headers).get("ms_sequence", b"")
            if not EXECUTION_ID.fullmatch(key) or not SEQUENCE.fullmatch(sequence):
                raise Poison("undecodable", str(error)) from error
            return Routed(key, Damaged(int(sequence), str(error)))
        if event.execution_id != key:
            raise Poison("key_mismatch", f"expected the key {event.execution_id}, found {key[:80]!r}")
        return Routed(key, event)

    def apply(
        self,
        routed: Routed,
        state: Projection | None,
        lookups: Mapping[str, Projection | None],
        record: Input,
        now: datetime,
    ) -> Change[Projection]:
        """Apply the event and those parked behind it, or park it."""
        state = state or Projection(routed.key)
        message = cast("Event | Damaged", routed.message)
        dead = Poison("undecodable", message.error) if isinstance(message, Damaged) else None
        if message.sequence <= state.sequence:
            return Change(state, dead=dead)
        if message.sequence > state.sequence + 1 and len(state.parked) < PARKED_MAX:
            value = b"" if isinstance(message, Damaged) else record.value or b""
            value = state.parked.get(message.sequence) or value
            state = replace(state, parked={**state.parked, message.sequence: value})
            return Change(state, rows=(_parked_row(state),), dead=dead)
        if message.sequence > state.sequence + 1:  # the gap will not fill any more: go on without it
            state = self._skip_gap(state, message.sequence)
        state, rows = self._step(state, message)
        state, more = self._unpark(state)
        snapshot = (Row("execution", {"state": state}),) if state.tenant else ()
        return Change(state, rows=(*rows, *more, *snapshot), dead=dead)

    def _skip_gap(self, state: Projection, sequence: int) -> Projection:
        first = min([*state.parked, sequence])
        return replace(state, sequence=first - 1, incomplete=True)

    def _step(self, state: Projection, message: Event | Damaged) -> tuple[Projection, tuple[Row, ...]]:
        if message.sequence != state.sequence + 1:
            value = self._codec.encode(message) if not isinstance(message, Damaged) else b""
            return replace(state, parked={**state.parked, message.sequence: value}), ()
        if isinstance(message, Damaged):
            return replace(state, sequence=message.sequence, incomplete=True), ()
        after = projection.evolve(state, message)
        answers = commands.answer_rows(message, held=state.held)
        return after, (*_event_rows(message), *_word_rows(state, after, message), *answers)

    def _unpark(self, state: Projection) -> tuple[Projection, tuple[Row, ...]]:
        rows: list[Row] = []
        while (value := state.parked.get(state.sequence + 1)) is not None:
            sequence = state.sequence + 1
            rest = {key: body for key, body in state.parked.items() if key != sequence}
            message = self._event("execution.events", value) if value else Damaged(sequence, "")
            state, more = self._step(replace(state, parked=rest), message)
            rows.extend(more)
        return state, tuple(rows)

    def _event(self, topic: str, value: bytes | None) -> Event:
        record = self._codec.decode(topic, value)
        assert isinstance(record, Event)
        return record

    def encode(self, state: Projection) -> bytes:
        """See projection.encode."""
        return projection.encode(state)

    def decode(self, key: str, body: bytes) -> Projection:
        """See projection.decode."""
        return projection.decode(body)


def _parked_row(state: Projection) -> Row:
    return Row("parked", {"execution_id": state.execution_id, "count": len(state.parked)})


def _event_rows(event: Event) -> tuple[Row, ...]:
    seen = Row(
        "event",
        {
            "execution_id": event.execution_id,
            "sequence": event.sequence,
            "tenant": event.tenant,
            "type": type_of(event),
            "occurred_at": event.occurred_at,
            "body": msgspec.json.encode(public.view(event)).decode(),
        },
    )
    match event:
        case events.ExecutionAccepted(request=request):
            asked = {
                "body": json.dumps(exhaust.request_data(request)),
                "channel": _short(request.requested_channel),
            }
            return (seen, Row("request", {"execution_id": event.execution_id, **asked}))
        case events.StepCompleted(output={"batch_filters": found}):
            return (seen, Row("batches", {"execution_id": event.execution_id, "body": json.dumps(found)}))
        case events.FilePublished(file=file):
            place = {"execution_id": event.execution_id, "tenant": event.tenant}
            return (
                seen,
                Row("file", {**place, "published_at": event.occurred_at, **msgspec.to_builtins(file)}),
            )
        case _:
            return (seen,)


def _word_rows(before: Projection, after: Projection, event: Event) -> tuple[Row, ...]:
    """What the event adds to `api.step_event`."""
    if before.steps is after.steps:
        return ()
    place = {"execution_id": event.execution_id, "sequence": event.sequence}
    told = {"occurred_at": event.occurred_at, "tenant": event.tenant}
    return tuple(
        Row("word", {**place, **told, **msgspec.structs.asdict(word)})
        for word in steps.words(before.steps, after.steps)
    )


def write_rows(cursor: Any, rows: Sequence[Row]) -> None:
    """Write a batch's rows in the loop's transaction. Writing the same rows again changes nothing."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, []).append(row.values)
    newest = {values["state"].execution_id: values["state"] for values in by_kind.get("execution", ())}
    if newest:
        execute_values(cursor, _EXECUTIONS, [_execution(state) for state in newest.values()])
    if found := by_kind.get("event"):
        execute_values(cursor, _EVENTS, found, _EVENT_TEMPLATE, page_size=500)
    if found := by_kind.get("word"):
        execute_values(cursor, _WORDS, found, _WORD_TEMPLATE, page_size=500)
    if found := by_kind.get("file"):
        execute_values(cursor, _FILES, found, _FILE_TEMPLATE, page_size=500)
        cursor.execute(_DOWNLOADS, (list({values["execution_id"] for values in found}),))
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
    commands.write_answers(cursor, by_kind.get("answer", ()), by_kind.get("rerun", ()))
    if newest:
        live.announce(cursor, newest)


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
_FILES = (
    "INSERT INTO api.file (execution_id, name, tenant, batch, rows, bytes, sha256, content_type, blob_key,"
    " published_at) VALUES %s ON CONFLICT DO NOTHING"
)
_FILE_TEMPLATE = (
    "(%(execution_id)s, %(name)s, %(tenant)s, %(batch)s, %(rows)s, %(bytes)s, %(sha256)s, %(content_type)s,"
    " %(key)s, %(published_at)s)"
)

_DOWNLOADS = """
    UPDATE api.job_request AS request SET download_urls = file.urls, dt_file_created = file.newest
    FROM (SELECT execution_id, array_agg('/files/' || execution_id || '/' || name ORDER BY name) AS urls,
                 max(published_at) AT TIME ZONE 'UTC' AS newest
          FROM api.file WHERE execution_id = ANY(%s) AND name <> 'manifest.json'
          GROUP BY execution_id) AS file
    WHERE request.execution_id = file.execution_id
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
        _short(state.tag) or "",
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


def _short(label: str | None) -> str | None:
    """A label as S1's columns have room for it; api itself refuses longer ones."""
    return label and (_storable(label) or "")[:LABEL_CHARS_MAX]


def _storable(text: str | None) -> str | None:
    # Requests of other services may hold what PostgreSQL's text does not take.
    return None if text is None else text.replace("\0", "\ufffd")
