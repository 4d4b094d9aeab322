"""Calls: steps that wait for somebody else, each a coroutine of one event loop.

A take is accepted whether or not a slot is free: it waits here, is claimed like any step that lasts, and so
holds up neither the records after it on its partition nor a lane. Its time runs from then on.
"""

import asyncio
import threading
from collections.abc import Iterable, Mapping

from prometheus_client import Gauge

from services.executor.calls.outbound import Caller
from services.executor.steps.outcome import Outcome, Retry
from services.executor.steps.step import Call
from services.executor.work.slots import Slots
from services.executor.work.take import Take
from services.executor.work.works import NOT_BEGUN, STOPPED, Work, Works
from services.runtime import telemetry

HELD_MAX = 4_000
"""Takes that run or wait here. The manager's windows keep steps below it; of actions they do not."""
FULL = Retry("worker_full", f"the worker holds {HELD_MAX} calls that run or wait")

HELD = Gauge(
    "worker_calls_held", "Calls running or waiting for a slot", ["queue"], registry=telemetry.REGISTRY
)
WAITING = Gauge("worker_calls_waiting", "Calls waiting for a slot", ["queue"], registry=telemetry.REGISTRY)


class Calls:
    """Runs takes of the kinds that it knows; safe from any thread."""

    def __init__(
        self, name: str, steps: Mapping[str, Call], works: Works, caller: Caller, slots: Slots
    ) -> None:
        self._steps = steps
        self._works = works
        self._caller = caller
        self._slots = slots
        self._held: set[Work] = set()
        self._waiting: set[Work] = set()
        self._lock = threading.Lock()
        """Of `_waiting`: a take either gets its slot or is withdrawn."""
        HELD.labels(name).set_function(lambda: len(self._held))
        WAITING.labels(name).set_function(lambda: len(self._waiting))

    def takes(self, kind: str) -> bool:
        """Whether steps of this kind are calls."""
        return kind in self._steps

    def start(self, takes: Iterable[Take], *, claimed: bool) -> None:
        """Run takes, each as soon as it has a slot; more than may be held are given back."""
        for work in self._works.add(takes, claimed=claimed):
            self._works.begin(work)
            if len(self._held) >= HELD_MAX:
                self._caller.begin(asyncio.to_thread(self._works.end, work, FULL))
                continue
            self._held.add(work)
            self._waiting.add(work)
            self._caller.begin(self._run(work))

    def claim(self, partition: int) -> None:
        """Claim what holds up this partition's offset."""
        for work in (*self._held,):
            if work.take.place.partition == partition:
                self._works.claim(work)

    def withdraw(self, lost: frozenset[int] | None) -> None:
        """Forget takes that wait: of these partitions, or all. Claimed ones stay."""
        with self._lock:
            waiting = [*self._waiting]
            for work in waiting:
                if (lost is None or work.take.place.partition in lost) and self._works.withdraw(work):
                    self._waiting.discard(work)
                    self._held.discard(work)
                    self._works.stop(work)

    def give_back(self) -> None:
        """Stop what is claimed and still waits: another worker may have a slot."""
        for work in (*self._waiting,):
            work.cancellation.set(STOPPED)
            self._works.stop(work)

    async def _run(self, work: Work) -> None:
        loop = asyncio.get_running_loop()
        inner = asyncio.ensure_future(self._outcome(work))

        def stop() -> None:
            loop.call_soon_threadsafe(inner.cancel)

        with work.cancellation.calling(stop):
            if work.cancellation.is_set():  # before anybody could have been told how to end it
                inner.cancel()
            await asyncio.wait({inner})
        if work not in self._held:
            return  # it was withdrawn
        outcome = NOT_BEGUN if inner.cancelled() else inner.result()
        self._held.discard(work)
        self._waiting.discard(work)
        await asyncio.to_thread(self._works.end, work, outcome)

    async def _outcome(self, work: Work) -> Outcome:
        request = work.take.request
        step = self._steps[request.kind]
        try:
            destination = step.destination(request)
            if not self._slots.free(request.tenant, destination):
                work.log.logger().info("call_waits", destination=destination)
            async with self._slots.held(request.tenant, destination):
                if not self._mine(work):
                    return NOT_BEGUN
                return await step.run(request, self._works.context(work))
        except Exception as error:
            return self._works.raised(work, error)

    def _mine(self, work: Work) -> bool:
        with self._lock:
            mine = work in self._waiting
            self._waiting.discard(work)
            return mine
