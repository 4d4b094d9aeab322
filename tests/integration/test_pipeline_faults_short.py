"""A short siege: 20 pipelines, the manager and each of two workers killed once."""

from pathlib import Path

import pytest

from tests.faults.harness import outcomes
from tests.faults.harness.siege import VICTIMS, siege

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

PIPELINES = 20
SPACING_S = 0.1
CALM_S = (0.5, 1.5)
SEED = 20_261_121


def test_pipelines_end_as_if_nobody_had_been_killed(tmp_path: Path) -> None:
    with siege(tmp_path, SEED) as run:
        run.run(PIPELINES, SPACING_S, CALM_S, len(VICTIMS))
        found = outcomes.check(run)
    assert not found.faults, "\n".join(found.faults)
    assert {victim for victim, _ in run.deaths} == {*VICTIMS}, "not everybody was killed"
