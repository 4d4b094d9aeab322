"""Step kinds: one file and one line each: in STEPS if they compute, in CALLS if they wait for others."""

from collections.abc import Mapping

from services.executor.steps.api import Api
from services.executor.steps.export import Export
from services.executor.steps.noop import Noop
from services.executor.steps.step import Call, Step
from services.executor.steps.transform import Transform

STEPS: Mapping[str, Step] = {
    "EXPORT": Export(),
    "NOOP": Noop(),
    "TRANSFORM": Transform(),
}

CALLS: Mapping[str, Call] = {
    "API": Api(),
}
