"""NOOP: nothing, to measure everything around a step."""

from services.contracts.commands import StepRequested
from services.executor.steps.outcome import Done, Outcome
from services.executor.steps.step import Context


class Noop:
    """See the module."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        """Done at once, without files."""
        return Done()
