"""One take of an attempt: its record off the queue, and what is said about it."""

from datetime import datetime

from msgspec import Struct

from services.contracts.commands import Json, StepOutcome, StepReport, StepRequested
from services.executor.steps.outcome import Done, Fail, Outcome, Retry
from services.executor.steps.step import Totals
from services.executor.work.partition import Place

LEASE_S = 20
TAKE_ID_DIGITS = 20
MESSAGE_CHARS_MAX = 2000
NOTHING_YET = Totals(0, 0, 0)


class Take(Struct, frozen=True, gc=False):
    """`take_id` fences: of all takes of an attempt, the first that the manager reads owns it.

    `came_at` as in Waiting.
    """

    request: StepRequested
    take_id: str
    worker: str
    place: Place
    came_at: float

    def report(
        self, kind: str, at: datetime, totals: Totals = NOTHING_YET, detail: str | None = None
    ) -> StepReport:
        """A claim, heartbeat or part; each renews the lease."""
        return StepReport(
            execution_id=self.request.execution_id,
            tenant=self.request.tenant,
            attempt_id=self.request.attempt_id,
            take_id=self.take_id,
            worker=self.worker,
            kind=kind,
            lease_s=LEASE_S,
            reported_at=at,
            files=totals.files,
            rows=totals.rows,
            bytes=totals.bytes,
            detail=detail,
        )

    def outcome(self, outcome: Outcome, at: datetime) -> StepOutcome:
        """The end of the take."""
        done = outcome if isinstance(outcome, Done) else Done(_asked_for(outcome))
        ended = None if isinstance(outcome, Done) else outcome
        return StepOutcome(
            execution_id=self.request.execution_id,
            tenant=self.request.tenant,
            attempt_id=self.request.attempt_id,
            take_id=self.take_id,
            worker=self.worker,
            outcome=_WORDS[type(outcome)],
            finished_at=at,
            reason=ended.reason if ended else None,
            message=ended.message[:MESSAGE_CHARS_MAX] if ended else None,
            output=done.output,
            files=done.files,
        )


def _asked_for(outcome: Retry | Fail) -> Json:
    """What the manager learns beside the reason."""
    if isinstance(outcome, Retry) and outcome.after_s is not None:
        return {"retry_after_s": outcome.after_s}
    return None


_WORDS: dict[type[Outcome], str] = {Done: "done", Retry: "retry", Fail: "fail"}
