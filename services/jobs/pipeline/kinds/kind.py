"""What a kind of step says about itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.contracts.commands import Json
from services.jobs.fields import Faults, Fields
from services.jobs.pipeline.shape import Step
from services.jobs.pipeline.work import Work

Read = Callable[[Fields], Work]
"""The checked parameters of a step and the templates in them; faults are noted in the fields."""

Plan = Callable[[Step, Mapping[str, Json], Mapping[str, Json], Faults], Json]
"""The parameters that the plan carries, of a step, the request's values and the pinned datasets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of step. `keys` are its known parameters. `secrets`: its headers and data may take secrets.
    `timeout_key`: the parameter that says how long it may take, in the place of the step's timeout_s.

    `plan` makes the parameters when the request is made; such a kind takes values of the request only, and
    nothing in its parameters is filled later: a value that looks like a placeholder stays what it is.
    """

    read: Read
    keys: tuple[str, ...] = ()
    timeout_s: int
    max_attempts: int
    timeout_key: str | None = None
    secrets: bool = False
    plan: Plan | None = None
