"""Step kinds: one file and one line in STEPS each."""

from collections.abc import Mapping

from services.executor.steps.export import Export
from services.executor.steps.noop import Noop
from services.executor.steps.step import Step

STEPS: Mapping[str, Step] = {
    "EXPORT": Export(),
    "NOOP": Noop(),
}
