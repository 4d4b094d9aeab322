"""The loop's store in memory. Several loops may share one, as they share a database."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from services.runtime.entropy import Clock
from services.runtime.processor.outbox import unpack
from services.runtime.processor.types import Fenced, Live, Owned, PartCommit, Row, StateRow


@dataclass(slots=True)
class Tables:
    """What a database would hold."""

    clock: Clock
    owners: dict[int, tuple[int, int]] = field(default_factory=dict)
    offsets: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    outboxes: dict[int, bytes] = field(default_factory=dict)
    states: dict[str, StateRow] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    wakes: int = 0


WriteRows = Callable[["MemoryStore", Sequence[Row]], None]


class MemoryStore:
    """One owner's view of shared tables. See Store."""

    def __init__(self, tables: Tables, write_rows: WriteRows | None = None) -> None:
        """`tables` outlive the owner, like a database. `write_rows` may raise Contended, having changed
        nothing, and `wake` states."""
        self.tables = tables
        self._write_rows = write_rows
        self._wakes_seen = -1

    def acquire(self, parts: Sequence[int]) -> Mapping[int, Owned]:
        """Bump epochs."""
        owned: dict[int, Owned] = {}
        for part in parts:
            epoch, batch_no = self.tables.owners.get(part, (0, 0))
            self.tables.owners[part] = (epoch + 1, batch_no)
            offsets = {topic: spot for (topic, index), spot in self.tables.offsets.items() if index == part}
            outbox = unpack(self.tables.outboxes.get(part, b""))
            owned[part] = Owned(epoch + 1, batch_no, offsets, outbox)
        return owned

    def load(self, keys: Iterable[str]) -> Mapping[str, StateRow]:
        """States by key."""
        return {key: self.tables.states[key] for key in keys if key in self.tables.states}

    def states_of(self, part: int) -> Iterable[StateRow]:
        """States by index."""
        return [row for row in self.tables.states.values() if row.part == part]

    def live(self, parts: Sequence[int]) -> Iterable[Live]:
        """States with a timer."""
        rows = self.tables.states.values()
        return [
            Live(row.part, row.key, row.due_at, row.memo)
            for row in rows
            if row.part in parts and row.due_at is not None
        ]

    def wake(self, keys: Iterable[str]) -> None:
        """Make states due that wait for something."""
        self.tables.wakes += 1
        for row in [self.tables.states[key] for key in keys if key in self.tables.states]:
            self.tables.states[row.key] = msgspec.structs.replace(row, due_at=self.now())

    def woken(self) -> bool:
        """Whether anybody has woken anything since the last call."""
        woken = self.tables.wakes != self._wakes_seen
        self._wakes_seen = self.tables.wakes
        return woken

    def waiting(self, parts: Sequence[int]) -> Mapping[str, tuple[int, datetime]]:
        """Parked states that are due."""
        now = self.now()
        return {
            row.key: (row.part, row.due_at)
            for row in self.tables.states.values()
            if row.part in parts
            and row.waits_for is not None
            and row.due_at is not None
            and row.due_at <= now
        }

    def commit(
        self,
        parts: Sequence[PartCommit],
        states: Sequence[StateRow],
        rows: Sequence[Row],
        wakes: Sequence[str],
    ) -> None:
        """All or nothing: the guard is checked before anything changes."""
        for part in parts:
            if self.tables.owners.get(part.part) != (part.epoch, part.batch_no - 1):
                raise Fenced(f"index {part.part} is not ours any more")
        if rows and self._write_rows is not None:
            self._write_rows(self, rows)
        for part in parts:
            self.tables.owners[part.part] = (part.epoch, part.batch_no)
            self.tables.outboxes[part.part] = part.outbox
            self.tables.offsets |= {(topic, part.part): spot for topic, spot in part.offsets.items()}
        for row in states:
            if row.body is None:
                self.tables.states.pop(row.key, None)
            else:
                self.tables.states[row.key] = row
        self.tables.rows.extend(rows)
        if wakes:
            self._wake(frozenset(wakes), frozenset(row.key for row in states))

    def numbers(self, parts: Sequence[int]) -> Mapping[int, tuple[int, int]]:
        """Epoch and batch number."""
        return {part: self.tables.owners[part] for part in parts}

    def now(self) -> datetime:
        """The shared clock."""
        return self.tables.clock.now()

    def _wake(self, wakes: frozenset[str], own: frozenset[str]) -> None:
        waiting = self.tables.states.values()
        self.wake([row.key for row in waiting if row.waits_for in wakes and row.key not in own])
