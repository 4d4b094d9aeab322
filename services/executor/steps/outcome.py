"""How a step ends. Values, not exceptions: a step decides what its failure means."""

from dataclasses import dataclass

from services.contracts.commands import File, Json

OUTPUT_BYTES_MAX = 32 * 1024
"""Of a result as JSON: it travels in records, and later steps read it."""


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
