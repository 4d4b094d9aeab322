"""A handler that keeps a memory beside the states: the counting one, with a few more texts."""

from collections.abc import Iterable, Mapping
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

    remembers = True

    def __init__(self, inputs: tuple[str, ...], output: str, name: str) -> None:
        super().__init__(inputs, output, name)
        self.live: dict[int, dict[str, Count]] = {}
        self.counted: set[str] = set()
        self.batches: list[tuple[set[str], set[str]]] = []
        """Of each commit: the keys counted while it was decided, and those that it changed."""
        self.full = 0

    def adopted(self, indexes: Mapping[int, Iterable[tuple[str, Count]]]) -> None:
        self.live = {index: dict(states) for index, states in indexes.items()}

    def dropped(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            del self.live[index]

    def begin(self) -> None:
        self.counted = set()

    def committed(self, states: Iterable[tuple[int, str, Count | None]]) -> None:
        changed = {key: (index, state) for index, key, state in states}
        for key, (index, state) in changed.items():
            if state is not None and state.due_at is not None:
                self.live[index][key] = state
            else:
                self.live[index].pop(key, None)
        self.batches.append((self.counted, {*changed}))

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
        return Change(
            replace(state, seen=(*state.seen, "served")),
            due_at=state.due_at,
            out=(Outgoing(self.output, key.encode(), b"served"),),
            rows=(Row("seen", {"key": key, "text": "served"}),),
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
        return super().apply(routed, state, lookups, record, now)

    def poisoned(
        self, key: str, state: Count | None, error: Poison, dead_letter: str, now: datetime
    ) -> Change[Count] | None:
        self.counted.add(key)
        return super().poisoned(key, state, error, dead_letter, now)
