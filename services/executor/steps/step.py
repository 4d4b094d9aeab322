"""What a step kind implements, and what it is given to do its work with."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from services.contracts.commands import StepRequested
from services.executor.steps.outcome import Outcome
from services.runtime.blobs import Blobs


@dataclass(frozen=True, slots=True)
class Totals:
    """How much is finished."""

    files: int
    rows: int
    bytes: int


class Progress(Protocol):
    """Says that a part is finished, with the totals of this take so far; never blocks for long."""

    def __call__(self, totals: Totals, detail: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Context:
    """The world of one take of a step.

    `take_id` is in every blob key, so that two takes of one attempt never write the same file. `sources` are
    database URLs (secret) by name. A step that sees `cancelled` set ends with Retry soon.
    """

    take_id: str
    blobs: Blobs
    sources: Mapping[str, str]
    progress: Progress
    cancelled: threading.Event
    log: FilteringBoundLogger


class Step(Protocol):
    """One step kind."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        """Do the work; blocks for up to `request.timeout_s`. An exception is taken as Retry by the caller."""
