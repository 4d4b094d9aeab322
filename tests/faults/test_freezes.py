"""Kafka and PostgreSQL stand still for 30 s, 40 times each; everything has to go on within 30 s by itself.

FREEZES and FREEZE_S choose how often and for how long. The tests share nothing and can run side by
side.
"""

import os
from pathlib import Path

import pytest

from services.runtime import entropy
from tests.faults.harness import freezes, report
from tests.faults.harness.freezes import RECOVERED_WITHIN_S, Server

pytestmark = [pytest.mark.faults]

FREEZES = int(os.environ.get("FREEZES") or 40)
FREEZE_S = float(os.environ.get("FREEZE_S") or 30)
SEED = int(os.environ.get("FAULTS_SEED") or int.from_bytes(entropy.token(3)))


def test_kafka_freezes_under_the_classic_protocol(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    _run(tmp_path, "kafka", "classic", pytestconfig)


def test_kafka_freezes_under_the_consumer_protocol(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    _run(tmp_path, "kafka", "consumer", pytestconfig)


def test_postgres_freezes(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    _run(tmp_path, "postgres", "consumer", pytestconfig)


def _run(folder: Path, server: Server, protocol: str, config: pytest.Config) -> None:
    campaign = freezes.run(folder / "data", server, protocol, FREEZES, FREEZE_S, SEED)
    report.say(config, f"seed {SEED}\n{campaign.table()}")
    late = [freeze for freeze in campaign.freezes if freeze.recovered_s > RECOVERED_WITHIN_S]
    assert not late, late
    assert not campaign.faults, "\n".join(campaign.faults[:40])
