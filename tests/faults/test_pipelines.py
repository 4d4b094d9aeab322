"""500 pipelines of ten steps while the manager and two workers are killed in turn."""

import os
from pathlib import Path

import pytest

from services.runtime import entropy
from tests.faults.harness import outcomes, report
from tests.faults.harness.siege import VICTIMS, siege

pytestmark = [pytest.mark.faults]

PIPELINES = 500
SPACING_S = 0.25
CALM_S = (1.0, 6.0)
KILLS_MAX = 60
SEED = int(os.environ.get("FAULTS_SEED") or int.from_bytes(entropy.token(3)))
FAULTS_SHOWN = 40


def test_every_pipeline_ends_as_if_nobody_had_been_killed(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    report.say(pytestconfig, f"pipelines: seed {SEED} (FAULTS_SEED={SEED} repeats the choices)")
    with siege(tmp_path, SEED) as run:
        run.run(PIPELINES, SPACING_S, CALM_S, KILLS_MAX)
        found = outcomes.check(run)
        report.say(pytestconfig, outcomes.row(found, run, SEED))
    assert not found.faults, "\n".join(found.faults[:FAULTS_SHOWN])
    assert {victim for victim, _ in run.deaths} == {*VICTIMS}
