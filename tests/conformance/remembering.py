"""A handler that keeps a memory beside the states: the counting one, with a few more texts."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from msgspec import structs

from services.contracts.envelope import Outgoing
from services.runtime.processor.types import Change, Contended, Input, Poison, Routed, Row
from tests.conformance.counting import Count, Counting
from tests.conformance.worlds import SEAT

FAR = timedelta(hours=1)


class Remembering(Counting):
    """`hungry` sets a timer that is far away, and has the state named until it was `served`; `seat` asks for
    the world's only one and is answered `full` by a handler that knows it to be taken."""

    def __init__(self, inputs: tuple[str, ...], output: str, name: str) -> None:
        super().__init__(inputs, output, name)
        self.live: dict[int, dict[str, Count]] = {}
        self.counted: set[str] = set()
        self.batches: list[tuple[set[str], set[str]]] = []
        """Of each commit: the keys counted while it was decided, and those that it changed."""
        self.full = 0
        self.told = 0
        """How often it was told of a state."""
        self.changed: set[str] | None = None

    def retain(self, indexes: Collection[int]) -> None:
        self.live = {index: states for index, states in self.live.items() if index in indexes}

    def remember(self, index: int, key: str, memo: bytes | None) -> None:
        self.told += 1
        if self.changed is not None:
            self.changed.add(key)
        states = self.live.setdefault(index, {})
        if memo is not None:
            states[key] = self.decode(key, memo)
        else:
            states.pop(key, None)

    def begin(self) -> None:
        self.counted, self.changed = set(), None

    def committed(self) -> None:
        self.changed = set()
        self.batches.append((self.counted, self.changed))

    def contended(self, contended: Contended) -> None:
        self.full += 1

    def wanted(self, now: datetime) -> list[tuple[str, int]]:
        return [
            (key, index)
            for index, states in self.live.items()
            for key, state in states.items()
            if "hungry" in state.seen and "served" not in state.seen
        ]

    def woken(self, key: str, state: Count, now: datetime) -> Change[Count]:
        self.counted.add(key)
        if "boom-woken" in state.seen:
            raise RuntimeError("boom")
        return self._reminded(
            Change(
                replace(state, seen=(*state.seen, "served")),
                due_at=state.due_at,
                out=(Outgoing(self.output, key.encode(), b"served"),),
                rows=(Row("seen", {"key": key, "text": "served"}),),
            )
        )

    def apply(
        self,
        routed: Routed,
        state: Count | None,
        lookups: Mapping[str, Count | None],
        record: Input,
        now: datetime,
    ) -> Change[Count]:
        self.counted.add(routed.key)
        if routed.message == "hungry":
            state = replace(state or Count(), due_at=now + FAR)
        if routed.message == SEAT and self.full:
            routed = structs.replace(routed, message="full")
        return self._reminded(super().apply(routed, state, lookups, record, now))

    def due(
        self,
        key: str,
        state: Count,
        lookups: Mapping[str, Count | None],
        now: datetime,
        caught_up_at: datetime,
    ) -> Change[Count]:
        return self._reminded(super().due(key, state, lookups, now, caught_up_at))

    def _reminded(self, change: Change[Count]) -> Change[Count]:
        """Its memo is all of a state that has a timer."""
        state = change.state
        memo = self.encode(state) if state is not None and change.due_at is not None else None
        return replace(change, memo=memo)

    def poisoned(
        self, key: str, state: Count | None, error: Poison, record: Input | None, now: datetime
    ) -> Change[Count] | None:
        self.counted.add(key)
        return super().poisoned(key, state, error, record, now)
