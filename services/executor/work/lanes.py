"""Lanes: a fixed number of steps at once, each in a thread, each with heartbeats until its outcome is in."""

import threading
import time
from collections.abc import Mapping

from prometheus_client import Counter, Gauge
from structlog.typing import FilteringBoundLogger

from services.executor.steps.outcome import Fail, Outcome, Retry
from services.executor.steps.step import Cancellation, Context, Step, Totals
from services.executor.work.reporter import Reporter
from services.executor.work.take import Take
from services.runtime import crash, telemetry
from services.runtime.container import Files

HEARTBEAT_S = 5.0

log = telemetry.get_logger()

STEPS_ENDED = Counter("steps_ended", "Takes that ended", ["kind", "outcome"], registry=telemetry.REGISTRY)
BUSY = Gauge("worker_lanes_busy", "Steps running now", registry=telemetry.REGISTRY)


class Lanes:
    """Runs takes; `start` only after the take's claim was acknowledged and its offset committed."""

    def __init__(
        self,
        count: int,
        steps: Mapping[str, Step],
        files: Files,
        sources: Mapping[str, str],
        reporter: Reporter,
    ) -> None:
        self._count = count
        self._steps = steps
        self._files = files
        self._sources = sources
        self._reporter = reporter
        self._running: dict[str, Take] = {}
        self._changed = threading.Condition()
        self._cancelled = Cancellation()
        self._closed = threading.Event()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def free(self) -> int:
        """How many more takes may be started."""
        with self._changed:
            return self._count - len(self._running)

    def wait_free(self, timeout_s: float) -> bool:
        """Wait for a free lane; whether there is one."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._running) < self._count, timeout_s)

    def runs(self, attempt_id: str) -> bool:
        """Whether a take of this attempt is running in this process."""
        with self._changed:
            return any(take.request.attempt_id == attempt_id for take in self._running.values())

    def start(self, take: Take) -> None:
        """Run a take; the caller has seen a free lane."""
        with self._changed:
            self._running[take.take_id] = take
            BUSY.set(len(self._running))
        # A daemon: a step that hangs must not keep a stopped process alive.
        threading.Thread(target=self._run, args=(take,), name=f"lane-{take.take_id}", daemon=True).start()

    def drain(self, timeout_s: float, grace_s: float) -> bool:
        """Wait for the running steps; those left after `timeout_s` are told to give up and get `grace_s`
        more to say so. False: some said nothing, and their leases will expire."""
        if not self._idle(timeout_s):
            self._cancelled.set("worker_stopped")
            self._idle(grace_s)
        self._closed.set()
        return self._idle(0)

    def _idle(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)

    def _run(self, take: Take) -> None:
        started = time.monotonic()
        try:
            outcome = self._outcome(take)
            self._report(take, outcome)
        finally:
            with self._changed:
                del self._running[take.take_id]
                BUSY.set(len(self._running))
                self._changed.notify_all()
        name = type(outcome).__name__.lower()
        STEPS_ENDED.labels(take.request.kind, name).inc()
        reason = getattr(outcome, "reason", None)
        duration_s = round(time.monotonic() - started, 3)
        self._log(take).info("step_ended", outcome=name, reason=reason, duration_s=duration_s)

    def _report(self, take: Take, outcome: Outcome) -> None:
        crash.reach("worker.outcome")
        if self._reporter.finish(take, outcome, self._closed.is_set):
            crash.reach("worker.outcome.acknowledged")

    def _outcome(self, take: Take) -> Outcome:
        """The one place where an unexpected exception of a step becomes Retry."""
        step = self._steps.get(take.request.kind)
        if step is None:
            known = ", ".join(self._steps)
            return Fail(
                "unknown_step_kind", f"this worker knows no kind {take.request.kind!r}; known: {known}"
            )
        try:
            return step.run(take.request, self._context(take))
        except Exception as error:
            self._log(take).exception("step_raised")
            return Retry("internal_error", f"{type(error).__name__} in the worker; its log has the details")

    def _context(self, take: Take) -> Context:
        def progress(totals: Totals, detail: str) -> None:
            self._reporter.tell(take, "part", totals, detail)

        return Context(
            take_id=take.take_id,
            files=self._files,
            sources=self._sources,
            progress=progress,
            cancelled=self._cancelled,
            log=self._log(take),
        )

    def _log(self, take: Take) -> FilteringBoundLogger:
        request = take.request
        return log.bind(
            execution=request.execution_id, step=request.step, attempt=request.attempt, take=take.take_id
        )

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_S):
            with self._changed:
                takes = [*self._running.values()]
            for take in takes:
                self._reporter.tell(take, "heartbeat")
