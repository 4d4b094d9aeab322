"""Job type `noop`: one step that does nothing, to measure everything around a step."""

from services.contracts.commands import JobRequested
from services.contracts.events import PlannedStep
from services.jobs.fields import Faults, Fields

TIMEOUT_S = 600
MAX_ATTEMPTS = 5


def plan(request: JobRequested) -> tuple[PlannedStep, ...]:
    """One NOOP step. Raises Refused when anything was asked of it."""
    faults = Faults()
    outer = Fields(request.parameters, "", ("params", "time_range"), faults)
    outer.object("params", ())
    if outer.get("time_range") is not None:
        faults.add("timeRange", "a noop has no time range; remove the field")
    if request.definition is not None or request.definition_id is not None:
        faults.add("dataset", "a noop has no dataset; remove the field")
    faults.raise_if_any()
    return (
        PlannedStep(name="noop", kind="NOOP", parameters={}, timeout_s=TIMEOUT_S, max_attempts=MAX_ATTEMPTS),
    )
