"""The takes of one queue that this process works on, from `add` until the broker has their outcomes.

Each is claimed in time, kept alive by heartbeats, stopped when a revocation, its timeout or the end of the
process asks for it, and reported once. Who runs it (lanes, calls) says when it begins and how it ended.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client import Counter

from services.contracts.commands import StepControl
from services.executor.calls.outbound import Outbound
from services.executor.steps.outcome import Done, Fail, Outcome, Retry, lasting
from services.executor.steps.source import Sources
from services.executor.steps.step import Cancellation, Context, Totals
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
STOPPED = "worker_stopped"
TIMED_OUT = "timeout"
TIMEOUT_GRACE_S = 1.0
"""A step that keeps its own time has the first word, which says more."""
NOT_BEGUN = Retry(STOPPED, "the step was stopped before it began")

STEPS_ENDED = Counter("steps_ended", "Takes that ended", ["kind", "outcome"], registry=telemetry.REGISTRY)

Settle = Callable[[Place], None]


@dataclass(slots=True, eq=False)
class Work:
    """A take in the hands of this process."""

    take: Take
    claimed: bool
    log: StepLog
    cancellation: Cancellation = field(default_factory=Cancellation)
    started_at: float = 0.0
    claiming: bool = False
    beaten_at: float = 0.0
    stopped_at: float = 0.0


class Works:
    """Safe from any thread. `settle` is told of each record that is done with: by its claim's or its
    outcome's acknowledgement. `on_look` is called with every look at the works, each WATCH_S."""

    def __init__(
        self,
        name: str,
        files: Files,
        sources: Sources,
        reporter: Reporter,
        logs: Logs,
        outbound: Outbound,
    ) -> None:
        self.settle: Settle = lambda _: None
        self.on_look: Callable[[], None] = lambda: None
        self._files = files
        self._sources = sources
        self._reporter = reporter
        self._logs = logs
        self._outbound = outbound
        self._works: set[Work] = set()
        """Queued, running, or waiting for the acknowledgement of its outcome."""
        self._begun: set[Work] = set()
        self._known: dict[str, Work] = {}
        """The first of them of each attempt id."""
        self._changed = threading.Condition()
        self._waiters = 0
        self._counters: dict[tuple[str, str], Counter] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    def add(self, takes: Iterable[Take], *, claimed: bool) -> list[Work]:
        """Takes that are this process's from now on."""
        works = [Work(take, claimed, self._logs.of(take)) for take in takes]
        self._works.update(works)
        for work in works:
            self._known.setdefault(work.take.request.attempt_id, work)
        return works

    def known(self, attempt_id: str) -> Work | None:
        """The work on this attempt in this process."""
        return self._known.get(attempt_id)

    def begin(self, work: Work) -> None:
        """Its time runs from now on."""
        # In this order: the watching thread measures whatever has begun from its start.
        work.started_at = work.beaten_at = time.monotonic()
        self._begun.add(work)

    def context(self, work: Work) -> Context:
        """The world of a step that begins."""

        def progress(totals: Totals, detail: str) -> None:
            if self._closed.is_set():
                return
            self.claim(work)
            self._reporter.tell(work.take, "part", totals, detail)

        if work.claimed:
            work.log.logger().info("step_began", kind=work.take.request.kind)
        return Context(
            take_id=work.take.take_id,
            files=self._files,
            sources=self._sources,
            progress=progress,
            cancelled=work.cancellation,
            log=work.log.logger(),
            outbound=self._outbound,
        )

    def raised(self, work: Work, error: BaseException) -> Outcome:
        """The one place where an unexpected exception of a step becomes Retry."""
        work.log.logger().error("step_raised", exc_info=error)
        return Retry("internal_error", f"{type(error).__name__} in the worker; its log has the details")

    def end(self, work: Work, outcome: Outcome) -> None:
        """It has ended, and is forgotten once the broker knows. May block as long as the blob store does."""
        try:
            self._end(work, outcome)
        finally:
            self._begun.discard(work)

    def forget(self, work: Work) -> None:
        """It never began, and is another's."""
        self._begun.discard(work)
        self._works.discard(work)
        if self._known.get(work.take.request.attempt_id) is work:
            del self._known[work.take.request.attempt_id]

    def claim(self, work: Work) -> None:
        """Claim a take that runs unclaimed, without waiting; its record is settled by the acknowledgement."""
        if not self._claims(work):
            return

        def acknowledged() -> None:
            work.claimed = True  # before it is settled, for the reason that _done gives
            self.settle(work.take.place)
            self.tell()

        self._reporter.deliver(self._reporter.claim(work.take, work.started_at), acknowledged)

    def withdraw(self, work: Work) -> bool:
        """Forget a take that has not begun, unless it is claimed; whether it is forgotten."""
        if not self._claims(work):
            return False
        self.forget(work)
        return True

    def revoke(self, control: StepControl) -> None:
        """Stop what the record names; its outcome is nobody's business any more."""
        for work in (*self._works,):
            if _names(control, work.take):
                work.cancellation.set(control.reason)
                self.stop(work)

    def stop(self, work: Work) -> None:
        """End what the step is blocked in, from a thread of its own: this may block as well."""
        work.stopped_at = time.monotonic()
        threading.Thread(target=work.cancellation.interrupt, name="stop", daemon=True).start()

    def settled(self, timeout_s: float) -> bool:
        """Wait until every take is claimed or ended; whether it is so."""
        return self.wait_for(lambda: all(work.claimed for work in (*self._works,)), timeout_s)

    def drain(self, timeout_s: float, grace_s: float) -> bool:
        """Wait for the running steps; those left after `timeout_s` are told to give up and get `grace_s`
        more to say so. False: some said nothing, and their leases will expire."""
        if not self._ended(timeout_s):
            for work in (*self._works,):
                work.cancellation.set(STOPPED)
                self.stop(work)
            self._ended(grace_s)
        self._closed.set()
        return self._ended(0)

    def _ended(self, timeout_s: float) -> bool:
        return self.wait_for(lambda: not self._works, timeout_s)

    # The collections are changed by calls that are atomic, without a lock, for there is a change or two per
    # step. Whoever waits says so first and looks then; whoever changes looks for waiters afterwards.

    def wait_for(self, fact: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a fact of which `tell` is called."""
        with self._changed:
            self._waiters += 1
            try:
                return self._changed.wait_for(fact, timeout_s)
            finally:
                self._waiters -= 1

    def tell(self) -> None:
        """Something has changed that others may wait for."""
        if self._waiters:
            with self._changed:
                self._changed.notify_all()

    def _claims(self, work: Work) -> bool:
        """Whether it falls to the calling thread to claim the take, or to withdraw it."""
        with self._changed:
            mine = not work.claimed and not work.claiming
            work.claiming = True
            return mine

    def _end(self, work: Work, outcome: Outcome) -> None:
        take, reason = work.take, work.cancellation.reason
        if reason is not None and not isinstance(outcome, Done):
            outcome = _cancelled(reason, take.request.timeout_s) or outcome
        outcome = lasting(outcome)
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
        self.forget(work)
        self.settle(work.take.place)
        self.tell()

    # ------------------------------------------------------------ the watching thread

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_S):
            self._reporter.resend()
            self.on_look()
            now = time.monotonic()
            for work in (*self._begun,):
                self._look_at(work, now)

    def _look_at(self, work: Work, now: float) -> None:
        age_s = now - work.started_at
        if age_s >= CLAIM_AFTER_S:
            self.claim(work)
        if work.claimed and now - work.beaten_at >= HEARTBEAT_S:
            work.beaten_at = now
            self._reporter.tell(work.take, "heartbeat")
        if age_s >= work.take.request.timeout_s + TIMEOUT_GRACE_S:
            work.cancellation.set(TIMED_OUT)
        if work.cancellation.is_set() and now - work.stopped_at >= STOP_AGAIN_S:
            self.stop(work)


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
