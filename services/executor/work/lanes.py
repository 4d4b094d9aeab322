"""Lanes: a fixed number of steps at once, each in a thread, each watched until its outcome is in."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge

from services.contracts.commands import StepControl
from services.executor.calls.outbound import Outbound
from services.executor.steps.outcome import Done, Fail, Outcome, Retry
from services.executor.steps.source import Sources
from services.executor.steps.step import Cancellation, Context, Step, Totals
from services.executor.work.logs import Logs, StepLog
from services.executor.work.partition import Place
from services.executor.work.reporter import Reporter
from services.executor.work.take import Take
from services.runtime import crash, telemetry
from services.runtime.container import Files

HEARTBEAT_S = 5.0
WATCH_S = 0.5
CLAIM_AFTER_S = 2.0
STOP_AGAIN_S = 1.0
SLOW_S = 0.005
STOPPED = "worker_stopped"
TIMED_OUT = "timeout"
TIMEOUT_GRACE_S = 1.0
"""A step that keeps its own time has the first word, which says more."""

STEPS_ENDED = Counter("steps_ended", "Takes that ended", ["kind", "outcome"], registry=telemetry.REGISTRY)
BUSY = Gauge("worker_lanes_busy", "Steps running now", ["lanes"], registry=telemetry.REGISTRY)

Settle = Callable[[Place], None]


@dataclass(slots=True, eq=False)
class Work:
    """A take in the hands of the lanes, from `start` until the broker has its outcome."""

    take: Take
    claimed: bool
    log: StepLog
    cancellation: Cancellation = field(default_factory=Cancellation)
    started_at: float = 0.0
    claiming: bool = False
    beaten_at: float = 0.0
    stopped_at: float = 0.0


class Lanes:
    """Runs takes; a claimed one only after its claim was acknowledged and its offset committed.

    `settle` is told of each record that is done with: by its claim's or its outcome's acknowledgement.
    """

    def __init__(
        self,
        name: str,
        count: int,
        steps: Mapping[str, Step],
        files: Files,
        sources: Sources,
        reporter: Reporter,
        logs: Logs,
        outbound: Outbound,
    ) -> None:
        self.settle: Settle = lambda _: None
        self._count = count
        self._steps = steps
        self._files = files
        self._sources = sources
        self._reporter = reporter
        self._logs = logs
        self._outbound = outbound
        self._queued: deque[Work] = deque()
        self._running: set[Work] = set()
        self._works: set[Work] = set()
        """Queued, running, or waiting for the acknowledgement of its outcome."""
        self._known: dict[str, Work] = {}
        """The first of them of each attempt id."""
        self._changed = threading.Condition()
        self._waiters = 0
        self._work_came = threading.Condition()
        self._resting = 0
        self._counters: dict[tuple[str, str], Counter] = {}
        self._moved_at = time.monotonic()
        self._closed = threading.Event()
        BUSY.labels(name).set_function(lambda: len(self._running))
        for number in range(count):
            # Daemons: a step that hangs must not keep a stopped process alive.
            threading.Thread(target=self._lane, name=f"{name}-{number}", daemon=True).start()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    def idle(self) -> int:
        """How many takes would start at once."""
        return max(0, self._count - len(self._running) - len(self._queued))

    def queued(self) -> int:
        """How many takes wait for a lane."""
        return len(self._queued)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait for a lane without work; whether there is one."""
        return self._wait_for(lambda: self.idle() > 0, timeout_s)

    def full_for_s(self) -> float:
        """How long every lane has been busy with the same claimed step."""
        running = (*self._running,)
        if len(running) < self._count or not all(work.claimed for work in running):
            return 0.0
        return time.monotonic() - self._moved_at

    def still_for_s(self) -> float:
        """How long takes have waited for a lane without any beginning or ending."""
        return time.monotonic() - self._moved_at if self._queued else 0.0

    def known(self, attempt_id: str) -> Work | None:
        """The work on this attempt in this process."""
        return self._known.get(attempt_id)

    def start(self, takes: Iterable[Take], *, claimed: bool) -> None:
        """Run takes in this order, as soon as lanes are free."""
        works = [Work(take, claimed, self._logs.of(take)) for take in takes]
        self._works.update(works)
        for work in works:
            self._known.setdefault(work.take.request.attempt_id, work)
        self._queued.extend(works)
        if works and (claimed or self._resting == self._count):
            self._wake(len(works) if claimed else 1)

    def hurry(self) -> None:
        """Have one more lane at work when takes wait and nothing moves.

        Steps of no length are quickest on one thread: two would only pass the interpreter to and fro.
        """
        if self._resting and self.still_for_s() >= SLOW_S:
            self._wake(1)

    def withdraw(self, partitions: Iterable[int] | None = None) -> None:
        """Forget takes that have not begun: of these partitions, or all of them. Claimed ones stay."""
        lost = None if partitions is None else frozenset(partitions)
        for _ in range(len(self._queued)):
            try:
                work = self._queued.popleft()
            except IndexError:  # the lanes were quicker
                return
            if work.claimed or (lost is not None and work.take.place.partition not in lost):
                self._queued.append(work)
            else:
                self._forget(work)

    def revoke(self, control: StepControl) -> None:
        """Stop what the record names; its outcome is nobody's business any more."""
        for work in (*self._works,):
            if not _names(control, work.take):
                continue
            work.cancellation.set(control.reason)
            self._stop(work)

    def settled(self, timeout_s: float) -> bool:
        """Wait until every take is claimed or ended; whether it is so."""
        return self._wait_for(lambda: all(work.claimed for work in (*self._works,)), timeout_s)

    def drain(self, timeout_s: float, grace_s: float) -> bool:
        """Wait for the running steps; those left after `timeout_s` are told to give up and get `grace_s`
        more to say so. False: some said nothing, and their leases will expire."""
        self.withdraw()
        if not self._ended(timeout_s):
            for work in (*self._works,):
                work.cancellation.set(STOPPED)
                self._stop(work)
            self._ended(grace_s)
        self._closed.set()
        self._wake(self._count)
        return self._ended(0)

    def _ended(self, timeout_s: float) -> bool:
        return self._wait_for(lambda: not self._works, timeout_s)

    # The collections are changed by calls that are atomic, without a lock, for there is a change or two per
    # step. Whoever waits says so first and looks then; whoever changes looks for waiters afterwards.

    def _wait_for(self, fact: Callable[[], bool], timeout_s: float) -> bool:
        with self._changed:
            self._waiters += 1
            try:
                return self._changed.wait_for(fact, timeout_s)
            finally:
                self._waiters -= 1

    def _tell(self) -> None:
        if self._waiters:
            with self._changed:
                self._changed.notify_all()

    def _wake(self, count: int) -> None:
        with self._work_came:
            self._work_came.notify(count)

    # ------------------------------------------------------------ a lane's thread

    def _lane(self) -> None:
        while (work := self._next()) is not None:
            try:
                self._end(work, self._outcome(work))
            finally:
                self._running.discard(work)
                self._moved_at = time.monotonic()
                self._tell()

    def _next(self) -> Work | None:
        while True:
            try:
                work = self._queued.popleft()
            except IndexError:
                if not self._rest():
                    return None
                continue
            # In this order: the watching thread measures whatever is running from its start.
            work.started_at = work.beaten_at = self._moved_at = time.monotonic()
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
        """The one place where an unexpected exception of a step becomes Retry."""
        take = work.take
        step = self._steps.get(take.request.kind)
        if step is None:
            known = ", ".join(self._steps)
            return Fail(
                "unknown_step_kind", f"this worker knows no kind {take.request.kind!r}; known: {known}"
            )
        if work.cancellation.is_set():
            return Retry(STOPPED, "the step was stopped before it began")
        if work.claimed:
            work.log.logger().info("step_began", kind=take.request.kind)
        try:
            return step.run(take.request, self._context(work))
        except Exception as error:
            work.log.logger().exception("step_raised")
            return Retry("internal_error", f"{type(error).__name__} in the worker; its log has the details")

    def _end(self, work: Work, outcome: Outcome) -> None:
        take, reason = work.take, work.cancellation.reason
        if reason is not None and not isinstance(outcome, Done):
            outcome = _cancelled(reason, take.request.timeout_s) or outcome
        if self._closed.is_set():
            return  # too late: nobody publishes any more, and its lease will expire
        revoked = reason not in (None, STOPPED, TIMED_OUT)
        name = "revoked" if revoked else type(outcome).__name__.lower()
        self._count_end(take.request.kind, name)
        if work.claimed or name != "done" or work.log.begun:
            told = reason or getattr(outcome, "reason", None)
            duration_s = round(time.monotonic() - work.started_at, 3)
            work.log.logger().info("step_ended", outcome=name, reason=told, duration_s=duration_s)
            work.log.close()
        if revoked:
            self._done(work)
        else:
            crash.reach("worker.outcome")
            self._reporter.finish(take, work.started_at, outcome, lambda: self._acknowledged(work))

    def _count_end(self, kind: str, name: str) -> None:
        counter = self._counters.get((kind, name))
        if counter is None:
            counter = self._counters[kind, name] = STEPS_ENDED.labels(kind, name)
        counter.inc()

    def _acknowledged(self, work: Work) -> None:
        crash.reach("worker.outcome.acknowledged")
        self._done(work)

    def _done(self, work: Work) -> None:
        # In this order: the same record, which comes again with a rebalance, is settled by us as long as the
        # work is known. Between the two it would be nobody's the other way round; so it only runs again.
        self._forget(work)
        self.settle(work.take.place)
        self._tell()

    def _forget(self, work: Work) -> None:
        self._works.discard(work)
        if self._known.get(work.take.request.attempt_id) is work:
            del self._known[work.take.request.attempt_id]

    def _context(self, work: Work) -> Context:
        def progress(totals: Totals, detail: str) -> None:
            if self._closed.is_set():
                return
            self._claim(work)
            self._reporter.tell(work.take, "part", totals, detail)

        return Context(
            take_id=work.take.take_id,
            files=self._files,
            sources=self._sources,
            progress=progress,
            cancelled=work.cancellation,
            log=work.log.logger(),
            outbound=self._outbound,
        )

    # ------------------------------------------------------------ the watching thread

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_S):
            self._reporter.resend()
            self.hurry()
            now = time.monotonic()
            for work in (*self._running,):
                self._look_at(work, now)

    def _look_at(self, work: Work, now: float) -> None:
        age_s = now - work.started_at
        if age_s >= CLAIM_AFTER_S:
            self._claim(work)
        if work.claimed and now - work.beaten_at >= HEARTBEAT_S:
            work.beaten_at = now
            self._reporter.tell(work.take, "heartbeat")
        if age_s >= work.take.request.timeout_s + TIMEOUT_GRACE_S:
            work.cancellation.set(TIMED_OUT)
        if work.cancellation.is_set() and now - work.stopped_at >= STOP_AGAIN_S:
            self._stop(work)

    def _claim(self, work: Work) -> None:
        """Claim a take that runs unclaimed, without waiting; its record is settled by the acknowledgement."""
        with self._changed:
            if work.claimed or work.claiming:
                return
            work.claiming = True

        def acknowledged() -> None:
            work.claimed = True  # before it is settled, for the reason that _done gives
            self.settle(work.take.place)
            self._tell()

        self._reporter.deliver(self._reporter.claim(work.take, work.started_at), acknowledged)

    def _stop(self, work: Work) -> None:
        """End what the step is blocked in, from a thread of its own: this may block as well."""
        work.stopped_at = time.monotonic()
        threading.Thread(target=work.cancellation.interrupt, name="stop", daemon=True).start()


def _names(control: StepControl, take: Take) -> bool:
    """Whether a revocation is about this take; an id that it does not name means all."""
    request = take.request
    return (
        control.execution_id == request.execution_id
        and control.attempt_id in (None, request.attempt_id)
        and control.take_id in (None, take.take_id)
    )


def _cancelled(reason: str, timeout_s: int) -> Outcome | None:
    """What a step that gave up means; None for a revoked one, of which nobody hears."""
    if reason == STOPPED:
        return Retry(STOPPED, "the worker was stopped in the middle of the step")
    if reason == TIMED_OUT:
        return Fail(TIMED_OUT, f"the step ran longer than its timeout of {timeout_s} s")
    return None
