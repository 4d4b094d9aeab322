"""A store and a log that fail on purpose around the real ones."""

from collections.abc import Sequence
from typing import Any

from services.contracts.envelope import Outgoing
from services.runtime.processor.types import Backpressure, Input, PartCommit, Row, StateRow


class Killed(BaseException):
    """The process died here; not even `except Exception` sees it."""


class FaultyStore:
    """Passes everything on, but for what the test sets."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.die_before_commit = self.die_after_commit = self.lose_answer = False
        self.away = False
        self.fail_to_acquire = 0

    def acquire(self, parts: Sequence[int]) -> Any:
        if self.fail_to_acquire:
            self.fail_to_acquire -= 1
            raise Backpressure("the database went away in between")
        return self._store.acquire(parts)

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise Backpressure("the database is away")
        return getattr(self._store, name)

    def commit(
        self,
        parts: Sequence[PartCommit],
        states: Sequence[StateRow],
        rows: Sequence[Row],
        wakes: Sequence[str],
    ) -> None:
        if self.away:
            raise Backpressure("the database is away")
        if self.die_before_commit:
            raise Killed
        self._store.commit(parts, states, rows, wakes)
        if self.lose_answer:
            self.lose_answer = False
            raise Backpressure("the answer to COMMIT was lost")
        if self.die_after_commit:
            raise Killed


class FaultyLog:
    """Passes everything on, but for what the test sets."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.die_after_poll = self.die_after_produce = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def poll(self, timeout_s: float, records_max: int, bytes_max: int) -> list[Input]:
        records: list[Input] = self._log.poll(timeout_s, records_max, bytes_max)
        if self.die_after_poll and records:
            raise Killed
        return records

    def produce(self, records: Sequence[Outgoing]) -> None:
        self._log.produce(records)
        if self.die_after_produce and records:
            raise Killed
