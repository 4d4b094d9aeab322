"""A thousand approvals, each decided by two people at once through two api processes."""

import os
from pathlib import Path

import pytest

from services.runtime import entropy
from tests.faults.harness import races, report
from tests.local import running

pytestmark = [pytest.mark.faults]

RACES = 1_000
SEED = int(os.environ.get("FAULTS_SEED") or int.from_bytes(entropy.token(3)))
FAULTS_SHOWN = 40


def test_one_of_two_deciders_wins(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with running(tmp_path / "data") as local, races.second_api(local.state, tmp_path) as other:
        faults, won = races.run(local.state, other, RACES, SEED)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(won.items()))
    report.say(pytestconfig, f"{RACES} races, seed {SEED}: {counts}")
    assert not faults, "\n".join(faults[:FAULTS_SHOWN])
    assert {name.split()[0] for name, count in won.items() if count} >= {"bob", "carol"}
