"""Lanes: a fixed number of steps that compute at once, each in a thread."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping

from prometheus_client import Gauge

from services.executor.steps.outcome import Fail, Outcome
from services.executor.steps.step import Step
from services.executor.work.take import Take
from services.executor.work.works import NOT_BEGUN, Work, Works
from services.runtime import telemetry

SLOW_S = 0.005

BUSY = Gauge("worker_lanes_busy", "Steps running now", ["lanes"], registry=telemetry.REGISTRY)


class Lanes:
    """Runs takes; a claimed one only after its claim was acknowledged and its offset committed."""

    def __init__(self, name: str, count: int, steps: Mapping[str, Step], works: Works) -> None:
        self._count = count
        self._steps = steps
        self._works = works
        self._queued: deque[Work] = deque()
        self._running: set[Work] = set()
        self._work_came = threading.Condition()
        self._resting = 0
        self._moved_at = time.monotonic()
        self._closed = threading.Event()
        works.on_look = self.hurry
        BUSY.labels(name).set_function(lambda: len(self._running))
        for number in range(count):
            # Daemons: a step that hangs must not keep a stopped process alive.
            threading.Thread(target=self._lane, name=f"{name}-{number}", daemon=True).start()

    def idle(self) -> int:
        """How many takes would start at once."""
        return max(0, self._count - len(self._running) - len(self._queued))

    def queued(self) -> int:
        """How many takes wait for a lane."""
        return len(self._queued)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait for a lane without work; whether there is one."""
        return self._works.wait_for(lambda: self.idle() > 0, timeout_s)

    def full_for_s(self) -> float:
        """How long every lane has been busy with the same claimed step."""
        running = (*self._running,)
        if len(running) < self._count or not all(work.claimed for work in running):
            return 0.0
        return time.monotonic() - self._moved_at

    def still_for_s(self) -> float:
        """How long takes have waited for a lane without any beginning or ending."""
        return time.monotonic() - self._moved_at if self._queued else 0.0

    def start(self, takes: Iterable[Take], *, claimed: bool) -> None:
        """Run takes in this order, as soon as lanes are free."""
        works = self._works.add(takes, claimed=claimed)
        self._queued.extend(works)
        if works and (claimed or self._resting == self._count):
            self._wake(len(works) if claimed else 1)

    def hurry(self) -> None:
        """Have one more lane at work when takes wait and nothing moves.

        Steps of no length are quickest on one thread: two would only pass the interpreter to and fro.
        """
        if self._resting and self.still_for_s() >= SLOW_S:
            self._wake(1)

    def withdraw(self, lost: frozenset[int] | None) -> None:
        """Forget takes that have not begun: of these partitions, or all. Claimed ones stay."""
        for _ in range(len(self._queued)):
            try:
                work = self._queued.popleft()
            except IndexError:  # the lanes were quicker
                return
            if work.claimed or (lost is not None and work.take.place.partition not in lost):
                self._queued.append(work)
            else:
                self._works.forget(work)

    def close(self) -> None:
        """End the lanes that rest."""
        self._closed.set()
        self._wake(self._count)

    def _wake(self, count: int) -> None:
        with self._work_came:
            self._work_came.notify(count)

    # ------------------------------------------------------------ a lane's thread

    def _lane(self) -> None:
        while (work := self._next()) is not None:
            try:
                self._works.end(work, self._outcome(work))
            finally:
                self._running.discard(work)
                self._moved_at = time.monotonic()
                self._works.tell()

    def _next(self) -> Work | None:
        while True:
            try:
                work = self._queued.popleft()
            except IndexError:
                if not self._rest():
                    return None
                continue
            self._works.begin(work)
            self._moved_at = work.started_at
            self._running.add(work)
            return work

    def _rest(self) -> bool:
        """Wait for work; False: there will be none."""
        with self._work_came:
            self._resting += 1
            while not self._queued and not self._closed.is_set():
                self._work_came.wait()
            self._resting -= 1
        return bool(self._queued) or not self._closed.is_set()

    def _outcome(self, work: Work) -> Outcome:
        take = work.take
        step = self._steps.get(take.request.kind)
        if step is None:
            message = (
                f"this worker knows no kind {take.request.kind!r}; bring the workers to the manager's version"
            )
            return Fail("unknown_step_kind", message)
        if work.cancellation.is_set():
            return NOT_BEGUN
        try:
            return step.run(take.request, self._works.context(work))
        except Exception as error:
            return self._works.raised(work, error)
