"""What a step kind implements, and what it is given to do its work with."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from services.contracts.commands import StepRequested
from services.executor.calls.outbound import Outbound
from services.executor.steps.outcome import Outcome
from services.executor.steps.source import Sources
from services.runtime.container import Files


@dataclass(frozen=True, slots=True)
class Totals:
    """How much is finished."""

    files: int
    rows: int
    bytes: int


class Progress(Protocol):
    """Says that a part is finished, with the totals of this take so far; never blocks for long."""

    def __call__(self, totals: Totals, detail: str) -> None: ...


class Cancellation:
    """Tells one take to give up, whatever it is doing; what it answers then no longer matters."""

    # One for all: nearly every take ends without ever having waited, and a condition each would cost more
    # than a short step.
    _changed = threading.Condition()

    def __init__(self) -> None:
        self.reason: str | None = None
        self._stops: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether the take should give up."""
        return self.reason is not None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for it; whether it came."""
        with self._changed:
            return self._changed.wait_for(self.is_set, timeout_s)

    def set(self, reason: str) -> None:
        """Ask the take to give up; the first reason stays."""
        with self._changed:
            self.reason = self.reason or reason
            self._changed.notify_all()

    @contextmanager
    def calling(self, stop: Callable[[], None]) -> Iterator[None]:
        """While inside, `stop` is what ends a call that blocks, such as a query.

        It is called by another thread, again each second until the step has ended, also when nothing blocks.
        """
        self._stops.append(stop)
        try:
            yield
        finally:
            self._stops.remove(stop)

    def interrupt(self) -> None:
        """Call every `stop`; may block as long as they do."""
        for stop in (*self._stops,):
            stop()


@dataclass(frozen=True, slots=True)
class Context:
    """The world of one take of a step.

    `take_id` is in every blob key, so that two takes of one attempt never write the same file. A step that
    sees `cancelled` set ends soon, with any outcome; around a call that may block for long it says how to end
    it: `with context.cancelled.calling(connection.cancel)`.
    `outbound` is for steps that call URLs.
    """

    take_id: str
    files: Files
    sources: Sources
    progress: Progress
    cancelled: Cancellation
    log: FilteringBoundLogger
    outbound: Outbound


class Call(Protocol):
    """One step kind that waits for somebody else and computes little: it takes no lane."""

    def destination(self, request: StepRequested) -> str:
        """Who will be waited for; so many calls of one destination run at once."""

    async def run(self, request: StepRequested, context: Context) -> Outcome:
        """Do the work within `request.timeout_s`, in the loop of `context.outbound`, where it never blocks.
        An exception is taken as Retry by the caller; cancelled when the take is."""


class Step(Protocol):
    """One step kind that computes: it takes a lane."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        """Do the work; blocks for up to `request.timeout_s`. An exception is taken as Retry by the caller."""
