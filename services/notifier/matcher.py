"""The notifier's handler for the one loop: `execution.events` in, rows of `notifier.delivery` out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import msgspec
from prometheus_client import Counter
from psycopg2.extras import Json, execute_values

from services.contracts.codec import Codec
from services.contracts.errors import Undecodable
from services.contracts.events import Event
from services.contracts.ids import EXECUTION_ID
from services.notifier.core.following import PARKED_MAX, Following, advance, park, skip
from services.notifier.core.matching import Delivery
from services.runtime.processor.handler import Handler
from services.runtime.processor.types import Change, Input, Poison, Routed, Row
from services.runtime.telemetry import REGISTRY, get_logger

TOPIC = "execution.events"
_FIRST = b"execution.accepted"
CHANNEL = "notifier_delivery"
"""Notified when deliveries were inserted."""

GAPS = Counter("sequence_gaps", "Gaps in the events of an execution that did not close", registry=REGISTRY)

log = get_logger()


class Matcher(Handler[Following]):
    """The loop's handler; states are Following, by execution id."""

    name: str = "notifier"
    inputs: tuple[str, ...] = (TOPIC,)

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def route(self, record: Input) -> Routed | None:
        """By the record's key. Nothing is decoded yet: most executions have no listeners."""
        key = (record.key or b"").decode("ascii", "replace")
        if not EXECUTION_ID.fullmatch(key):
            raise Poison("bad_key", f"expected an execution id (40 hex digits) as key, found {key[:80]!r}")
        return Routed(key, None)

    def apply(
        self,
        routed: Routed,
        state: Following | None,
        lookups: Mapping[str, Following | None],
        record: Input,
        now: datetime,
    ) -> Change[Following]:
        """Match the event and those it makes next; a gap parks, an old sequence changes nothing."""
        headers = dict(record.headers)
        if state is None and headers.get("ce_type", _FIRST) != _FIRST:
            # No listeners, or all is said and done. Only the first event can begin a state.
            return Change(None)
        try:
            event = self._event(record, routed.key)
        except Undecodable as error:
            return self._skip(state, headers.get("ms_sequence", b""), Poison("undecodable", str(error)))
        if state is None:
            return self._take(None, event)
        if event.sequence <= state.last:
            return Change(state, due_at=state.gap_until)
        if event.sequence == state.last + 1:
            return self._take(state, event)
        state = park(state, event.sequence, record.value or b"", now)
        if len(state.parked) > PARKED_MAX:
            return self._over_gap(routed.key, state)
        return Change(state, due_at=state.gap_until)

    def due(
        self,
        key: str,
        state: Following,
        lookups: Mapping[str, Following | None],
        now: datetime,
        caught_up_at: datetime,
    ) -> Change[Following]:
        """A gap has not closed in time."""
        return self._over_gap(key, state)

    def poisoned(
        self, key: str, state: Following | None, error: Poison, record: Input | None, now: datetime
    ) -> Change[Following] | None:
        """An event that is given up counts as seen: what comes after it is matched as ever."""
        if state is None:
            return None
        if record is not None:
            given_up = state.last + 1
            if dict(record.headers).get("ms_sequence") != str(given_up).encode():
                return None
        else:
            given_up = max(state.last + 1, min((sequence for sequence, _ in state.parked), default=0))
        parked = tuple(later for later in state.parked if later[0] > given_up)
        state = replace(skip(state, given_up), parked=parked, gap_until=now if parked else None)
        return Change(state, due_at=state.gap_until)

    def encode(self, state: Following) -> bytes:
        """MessagePack."""
        return msgspec.msgpack.encode(state)

    def decode(self, key: str, body: bytes) -> Following:
        """The state that `encode` wrote."""
        return msgspec.msgpack.decode(body, type=Following)

    def _take(self, state: Following | None, event: Event) -> Change[Following]:
        step = advance(state, event)
        return self._drain(step.following, list(step.deliveries))

    def _drain(self, state: Following | None, deliveries: list[Delivery]) -> Change[Following]:
        """Go on with what is parked, as long as it is next."""
        while state is not None and state.parked and state.parked[0][0] <= state.last + 1:
            (sequence, value), *rest = state.parked
            state = replace(state, parked=tuple(rest))
            if sequence == state.last + 1:
                step = advance(state, self._decoded(value))
                state = step.following
                deliveries.extend(step.deliveries)
        if state is not None and not state.parked:
            state = replace(state, gap_until=None)
        rows = tuple(Row("delivery", asdict(delivery)) for delivery in deliveries)
        return Change(state, due_at=None if state is None else state.gap_until, rows=rows)

    def _skip(self, state: Following | None, sequence: bytes, dead: Poison) -> Change[Following]:
        """An event that cannot be read is a dead letter; its sequence, if its header tells it, is seen."""
        if state is None:
            return Change(None, dead=dead)
        if sequence == str(state.last + 1).encode():
            return replace(self._drain(skip(state, state.last + 1), []), dead=dead)
        return Change(state, due_at=state.gap_until, dead=dead)

    def _event(self, record: Input, key: str) -> Event:
        event = self._decoded(record.value)
        if event.execution_id != key:
            raise Undecodable(f"expected an event of its key {key}, found one of {event.execution_id[:80]!r}")
        return event

    def _decoded(self, value: bytes | None) -> Event:
        event: Event = self._codec.decode(TOPIC, value)  # type: ignore[assignment]  # its topic's records only
        return event

    def _over_gap(self, key: str, state: Following) -> Change[Following]:
        if not state.parked:
            return Change(replace(state, gap_until=None))
        GAPS.inc()
        log.warning("sequence_gap", execution_id=key, seen=state.last, next=state.parked[0][0])
        return self._drain(skip(state, state.parked[0][0] - 1), [])


_INSERT = """
INSERT INTO notifier.delivery (delivery_id, execution_id, tenant, event_id, sequence, event_type, listener,
    destination, url, method, headers, secret, body)
VALUES %s ON CONFLICT DO NOTHING
"""
_ROW = (
    "(%(delivery_id)s, %(execution_id)s, %(tenant)s, %(event_id)s, %(sequence)s, %(event_type)s,"
    " %(listener)s, %(destination)s, %(url)s, %(method)s, %(headers)s, %(secret)s, %(body)s)"
)


def write_rows(cursor: Any, rows: Sequence[Row]) -> None:
    """Insert deliveries; one that exists stays as it is, so that a replay sends nothing again."""
    if not rows:
        return
    values = [{**row.values, "headers": Json(row.values["headers"])} for row in rows]
    execute_values(cursor, _INSERT, values, template=_ROW, page_size=500)
    cursor.execute("SELECT pg_notify(%s, '')", (CHANNEL,))
