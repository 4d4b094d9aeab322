"""A short round of `make faults`: 30 executions, a crash in each class, worker and manager killed."""

from pathlib import Path

import pytest

from tests.faults.harness.campaign import CLASSES
from tests.faults.harness.world import world

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

SEED = 20_261_121
ROWS = 12_000
EXECUTIONS = 30
SPACING_S = 0.2
POINTS = (
    *("worker.claim", "worker.copy", "worker.blob", "worker.outcome"),
    *("outbox.produced", "notifier.send", "notifier.sent"),
)


def test_every_accepted_request_ends_once_whatever_dies(tmp_path: Path) -> None:
    with world(tmp_path / "data", SEED) as run:
        run.system.start(POINTS)
        run.prepare(ROWS)
        with run.submitting(EXECUTIONS, SPACING_S):
            for name in ("manager", "worker"):
                run.wait(run.rng.uniform(1, 3))
                run.system.await_ready()
                run.system.kill(name)
        run.system.await_hits()
        run.settle()
        found = run.check()
        run.system.count_hits()
        assert not found.faults, "\n".join(found.faults)
        missing = [name for name, points in CLASSES.items() if not points & run.system.hits.keys()]
        assert not missing, f"classes without a hit: {missing}; hits: {dict(run.system.hits)}"
        assert found.recoveries, "no work was lost with a worker"
        assert found.ends.get("execution.completed", 0) >= EXECUTIONS - len(POINTS), found.ends
