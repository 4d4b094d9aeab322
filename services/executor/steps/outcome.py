"""How a step ends. Values, not exceptions: a step decides what its failure means."""

from dataclasses import dataclass

from services.contracts.commands import File, Json
from services.language.values import Unfit, check_lasting

OUTPUT_BYTES_MAX = 32 * 1024
"""Of a result as JSON: it travels in records, and later steps read it."""


OUTPUT_MEASURE_MAX = 64 * OUTPUT_BYTES_MAX
"""Of a result as `check_lasting` counts; what is too large for a record is refused by its bytes."""


@dataclass(frozen=True, slots=True)
class Done:
    """The result, and the files that readers get to see from now on."""

    output: Json = None
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """The same attempt may succeed later. `reason` is a stable word, `message` is for people. `after_s`: no
    earlier than that, as a receiver asked for."""

    reason: str
    message: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """No attempt can succeed unless the request, the dataset or a setting changes."""

    reason: str
    message: str


Outcome = Done | Retry | Fail


def lasting(outcome: Outcome) -> Outcome:
    """The outcome, as long as every codec and store on its way can hold its output, whatever kind made it."""
    if not isinstance(outcome, Done):
        return outcome
    try:
        check_lasting(outcome.output, OUTPUT_MEASURE_MAX)
    except Unfit as unfit:
        return Fail("output_unfit", f"the step's output cannot be kept: {unfit}")
    return outcome
