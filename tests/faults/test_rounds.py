"""`make faults`: five rounds of 200 executions while everything is killed at random instants."""

import os
from collections.abc import Iterator

import pytest

from services.runtime import entropy
from tests.faults.harness import report
from tests.faults.harness.campaign import Round
from tests.faults.harness.system import EVERYTHING
from tests.faults.harness.world import World, world

pytestmark = [pytest.mark.faults]

ROUNDS = 5
ROWS = 60_000
SEED = int(os.environ.get("FAULTS_SEED") or int.from_bytes(entropy.token(3)))
FAULTS_SHOWN = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[World]:
    """One folder for all rounds: its log grows, and every check reads all of it."""
    report.say(pytestconfig, f"faults: seed {SEED} (FAULTS_SEED={SEED} repeats the choices)")
    with world(tmp_path_factory.mktemp("faults") / "data", SEED) as made:
        made.system.start()
        made.prepare(ROWS)
        made.system.stop()
        yield made


@pytest.fixture(scope="module")
def rows(pytestconfig: pytest.Config) -> Iterator[list[report.Row]]:
    """The rounds so far; the table is printed and written at the end, failed rounds included."""
    rows: list[report.Row] = []
    yield rows
    report.say(pytestconfig, report.table(rows))
    report.write(rows)


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
def test_kills_at_random_instants(
    run: World, rows: list[report.Row], number: int, pytestconfig: pytest.Config
) -> None:
    this = Round(run, number, SEED)
    row, found = this.run()
    rows.append(row)
    run.system.stop()
    report.say(pytestconfig, report.table([row]))
    assert not found.faults, "\n".join(found.faults[:FAULTS_SHOWN])
    assert not this.missing_classes()
    assert row.kills.keys() == {*EVERYTHING, "all"}


def test_secrets_are_nowhere(run: World) -> None:
    run.system.start()
    assert not run.leaks()
