"""What one execution may lead to: a loop, or whatever else makes much of a small request, has an end."""

from msgspec import Struct

from services.executor.core.execution import Execution

REASON = "budget_exceeded"


class Budget(Struct, frozen=True, kw_only=True, gc=False):
    """How many events, how many bytes of them, and how many steps that have ended.

    A plan of 100 steps, each with the largest result that an event holds (64 KiB), stays below.
    """

    events: int = 100_000
    bytes: int = 8 << 20
    step_runs: int = 1000


USUAL = Budget()


def exceeded(budget: Budget, state: Execution, more_bytes: int = 0) -> str | None:
    """Why it may lead to nothing more; `more_bytes` are events that are not in `event_bytes` yet."""
    if state.sequence >= budget.events:
        return _message("events", state.sequence, "EVENTS", budget.events)
    if (told := state.event_bytes + more_bytes) >= budget.bytes:
        return _message("bytes of events", told, "BYTES", budget.bytes)
    return None


def runs_exceeded(budget: Budget, state: Execution) -> str | None:
    """Why no further step may begin."""
    if state.runs >= budget.step_runs:
        return _message("ended steps", state.runs, "STEP_RUNS", budget.step_runs)
    return None


def _message(what: str, found: int, setting: str, limit: int) -> str:
    return f"the execution has led to {found} {what}; its budget (MILLSTREAM_BUDGET__{setting}) is {limit}"
