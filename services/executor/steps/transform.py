"""TRANSFORM: a result made of earlier ones. The manager evaluates `output`, which becomes the step's own."""

import msgspec

from services.contracts.commands import StepRequested
from services.executor.steps.outcome import OUTPUT_BYTES_MAX, Done, Fail, Outcome
from services.executor.steps.step import Context


class Transform:
    """See the module."""

    def run(self, request: StepRequested, context: Context) -> Outcome:
        """Done with the output; Fail when it is larger than a result may be."""
        output = request.parameters.get("output")
        size = len(msgspec.json.encode(output))
        if size > OUTPUT_BYTES_MAX:
            message = f"output: expected at most {OUTPUT_BYTES_MAX} bytes as JSON, found {size}"
            return Fail("output_too_large", message)
        return Done(output)
