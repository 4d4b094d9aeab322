"""Step kinds: one file and one line in STEPS each."""

from collections.abc import Mapping

from services.executor.steps.api import Api
from services.executor.steps.export import Export
from services.executor.steps.noop import Noop
from services.executor.steps.step import Step
from services.executor.steps.transform import Transform

STEPS: Mapping[str, Step] = {
    "API": Api(),
    "EXPORT": Export(),
    "NOOP": Noop(),
    "TRANSFORM": Transform(),
}
