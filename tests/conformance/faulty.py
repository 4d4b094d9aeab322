"""A store and a log that fail on purpose around the real ones."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from services.contracts.envelope import Outgoing
from services.runtime.processor.log import Spot
from services.runtime.processor.types import Backpressure, Input, PartCommit, Row, StateRow

STANDS_STILL_MAX_S = 60.0


class Killed(BaseException):
    """The process died here; not even `except Exception` sees it."""


class FaultyStore:
    """Passes everything on, but for what the test sets."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.die_before_commit = self.die_after_commit = self.lose_answer = False
        self.away = False
        self.answers = threading.Event()
        """Not set: it stands still, and whoever asks what time it is waits."""
        self.answers.set()
        self.fail_to_acquire = 0
        self.commits = 0

    def acquire(self, parts: Sequence[int]) -> Any:
        if self.fail_to_acquire:
            self.fail_to_acquire -= 1
            raise Backpressure("the database went away in between")
        return self._store.acquire(parts)

    def now(self) -> datetime:
        self.answers.wait(STANDS_STILL_MAX_S)
        instant: datetime = self.__getattr__("now")()
        return instant

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
        self.commits += 1
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
        self.unlisted = self.unasked = self.deaf = self.mute = False
        """The group has lost us; nobody answers what is asked of it; what comes is not read; the producer
        says nothing of what it was given."""
        self.heals = True
        """A new client mends `unlisted` and `deaf`."""
        self.rejoins = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def poll(self, timeout_s: float, records_max: int, bytes_max: int) -> list[Input]:
        records: list[Input] = self._log.poll(timeout_s, records_max, bytes_max)
        if self.die_after_poll and records:
            raise Killed
        return [] if self.deaf else records

    def settle(self, timeout_s: float) -> bool:
        return False if self.mute else bool(self._log.settle(timeout_s))

    def reached(self, spot: Spot) -> int:
        return 0 if self.deaf else int(self._log.reached(spot))

    def ask_listed(self) -> "Future[bool]":
        answer: Future[bool] = self._log.ask_listed()
        if self.unasked or self.unlisted:
            answer = Future()
            answer.set_exception(Backpressure("no broker")) if self.unasked else answer.set_result(False)
        return answer

    def rejoin(self) -> None:
        self.rejoins += 1
        if self.heals:
            self.unlisted = self.deaf = False
        self._log.rejoin()

    def produce(self, records: Sequence[Outgoing]) -> None:
        self._log.produce(records)
        if self.die_after_produce and records:
            raise Killed
