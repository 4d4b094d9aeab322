"""Read tables from `execution.events`: the handler that the loop drives, and the rows that it makes.

Events are applied in order of `sequence`. One that comes before its predecessor is parked in the execution's
state, other executions go on; one that has been seen changes nothing.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from services.api import commands, read_tables
from services.api.core import exhaust, projection, steps
from services.api.core.projection import Projection
from services.contracts import events, public
from services.contracts.codec import Codec
from services.contracts.errors import Undecodable
from services.contracts.events import Event, type_of
from services.contracts.ids import EXECUTION_ID
from services.runtime.processor.handler import Handler
from services.runtime.processor.types import Change, Input, Poison, Routed, Row

PARKED_MAX = 1000
SEQUENCE = re.compile(rb"[1-9][0-9]{0,17}")


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
            return Change(state, due_at=_next_at(state, now), dead=dead)
        if message.sequence > state.sequence + 1 and len(state.parked) < PARKED_MAX:
            value = b"" if isinstance(message, Damaged) else record.value or b""
            value = state.parked.get(message.sequence) or value
            state = replace(state, parked={**state.parked, message.sequence: value})
            return Change(state, due_at=_next_at(state, now), rows=(_parked_row(state),), dead=dead)
        if message.sequence > state.sequence + 1:  # the gap will not fill any more: go on without it
            state = self._skip_gap(state, message.sequence)
        state, rows = self._step(state, message)
        state, more = self._unpark(state)
        return Change(state, rows=(*rows, *more, *_snapshot(state)), dead=dead)

    def due(
        self,
        key: str,
        state: Projection,
        lookups: Mapping[str, Projection | None],
        now: datetime,
        caught_up_at: datetime,
    ) -> Change[Projection]:
        """The next of what is parked behind an event that was given up; alone, for it may be bad too."""
        value = state.parked.get(state.sequence + 1)
        if value is None:
            return Change(state)
        sequence = state.sequence + 1
        message = self._event("execution.events", value) if value else Damaged(sequence, "")
        state, rows = self._step(_without(state, sequence), message)
        return Change(state, due_at=_next_at(state, now), rows=(*rows, *_snapshot(state)))

    def poisoned(
        self, key: str, state: Projection | None, error: Poison, record: Input | None, now: datetime
    ) -> Change[Projection] | None:
        """An event that is given up counts as seen: the others go on, and the row is incomplete."""
        state = state or Projection(key)
        told = dict(record.headers).get("ms_sequence", b"") if record else b"%d" % (state.sequence + 1)
        if not SEQUENCE.fullmatch(told) or (sequence := int(told)) <= state.sequence:
            return None
        if sequence > state.sequence + 1:
            state = replace(state, parked={**state.parked, sequence: b""})
            return Change(state, due_at=_next_at(state, now), rows=(_parked_row(state),))
        state = replace(_without(state, sequence), sequence=sequence, incomplete=True)
        return Change(state, due_at=_next_at(state, now), rows=_snapshot(state))

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
            message = self._event("execution.events", value) if value else Damaged(sequence, "")
            state, more = self._step(_without(state, sequence), message)
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


def _snapshot(state: Projection) -> tuple[Row, ...]:
    return (Row("execution", {"state": state}),) if state.tenant else ()


def _without(state: Projection, sequence: int) -> Projection:
    """No event of this sequence is parked any more."""
    return replace(state, parked={key: body for key, body in state.parked.items() if key != sequence})


def _next_at(state: Projection, now: datetime) -> datetime | None:
    """At once, if the next event is parked already."""
    return now if state.sequence + 1 in state.parked else None


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
                "channel": read_tables.short(request.requested_channel),
            }
            return (seen, Row("request", {"execution_id": event.execution_id, **asked}))
        case events.StepCompleted(output={"batch_filters": found}):
            return (seen, Row("batches", {"execution_id": event.execution_id, "body": json.dumps(found)}))
        case events.FilePublished(step=step, file=file):
            place = {"step": step, "execution_id": event.execution_id, "tenant": event.tenant}
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
