"""A small handler for attacking the loop: it counts records per key and answers each with one record."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec

from services.contracts.envelope import Outgoing
from services.runtime.processor.handler import Handler
from services.runtime.processor.types import Change, Input, Poison, Routed, Row

TERM = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Count:
    """What a key has seen: texts in order, the instant of its timer, what it was told by it."""

    seen: tuple[str, ...] = ()
    due_at: datetime | None = None
    fired: int = 0
    parked: str | None = None
    failed: str | None = None


class Counting(Handler[Count]):
    """Values are texts with a meaning: `boom` raises, `nul` and `raw-nul` break the row, `timer` asks for a
    timer, `wait:<key>` parks until that key exists, `large` asks for a record that is too large."""

    def __init__(self, inputs: tuple[str, ...], output: str, name: str = "counting") -> None:
        self.name = name
        self.inputs = inputs
        self.output = output

    def route(self, record: Input) -> Routed | None:
        if record.value is None:
            raise Poison("empty", "expected text")
        text = record.value.decode()
        key = (record.key or b"").decode()
        lookups = (text.removeprefix("wait:"),) if text.startswith("wait:") else ()
        return Routed(key, text, lookups)

    def apply(
        self,
        routed: Routed,
        state: Count | None,
        lookups: Mapping[str, Count | None],
        record: Input,
        now: datetime,
    ) -> Change[Count]:
        text: str = routed.message
        state = state or Count()
        if text in state.seen:
            return Change(state, due_at=state.due_at)
        if text == "boom":
            raise RuntimeError("boom")
        state = replace(state, seen=(*state.seen, text))
        if text == "timer":
            state = replace(state, due_at=now + TERM)
        if text.startswith("wait:"):
            return self._park(replace(state, parked=text.removeprefix("wait:")), lookups, now)
        size = 2_000_000 if text == "large" else 0
        broken = "\x00" if text in ("nul", "raw-nul") else ""
        return Change(
            state,
            due_at=state.due_at,
            wakes=True,
            out=(self._answer(routed.key, f"{text}{'.' * size}"),),
            rows=(Row("seen", {"key": routed.key, "text": f"{text}{broken}"}),),
        )

    def lookups(self, key: str, state: Count) -> tuple[str, ...]:
        return (state.parked,) if state.parked else ()

    def due(
        self,
        key: str,
        state: Count,
        lookups: Mapping[str, Count | None],
        now: datetime,
        caught_up_at: datetime,
    ) -> Change[Count]:
        if "boom-timer" in state.seen:
            raise RuntimeError("boom")
        if state.parked:
            return self._park(state, lookups, now)
        if caught_up_at + TERM > now:
            return Change(state, due_at=caught_up_at + TERM)
        fired = replace(state, due_at=None, fired=state.fired + 1)
        return Change(fired, out=(self._answer(key, f"fired{fired.fired}"),))

    def poisoned(
        self, key: str, state: Count | None, error: Poison, record: Input | None, now: datetime
    ) -> Change[Count] | None:
        address = record.address if record else f"timer/{key}"
        failed = replace(state or Count(), failed=f"{error.reason} {address}", due_at=None)
        return Change(failed, out=(self._answer(key, "failed"),))

    def reconcile(self, state: Count, lost: frozenset[str], now: datetime) -> Iterable[Outgoing]:
        if self.output in lost:
            for text in state.seen:
                yield self._answer("again", text)

    def encode(self, state: Count) -> bytes:
        return msgspec.msgpack.encode(state)

    def decode(self, key: str, body: bytes) -> Count:
        return msgspec.msgpack.decode(body, type=Count)

    def _park(self, state: Count, lookups: Mapping[str, Count | None], now: datetime) -> Change[Count]:
        assert state.parked is not None
        if lookups.get(state.parked) is None:
            return Change(state, due_at=now + timedelta(seconds=30), waits_for=state.parked)
        found = replace(state, parked=None, due_at=None)
        return Change(found, out=(self._answer(state.seen[0], f"found {state.parked}"),))

    def _answer(self, key: str, text: str) -> Outgoing:
        return Outgoing(self.output, key.encode(), text.encode())
