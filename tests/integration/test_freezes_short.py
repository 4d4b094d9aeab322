"""A freeze of each server for a few seconds; `make faults` has 40 of 30 s."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.harness import freezes
from tests.faults.harness.freezes import RECOVERED_WITHIN_S

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

SEED = 20_261_130
KAFKA_S = 11.0
"""The manager tells a silence of 10 s, and a session is over by then: the group drops its members."""
POSTGRES_S = 4.0
"""The api tells one of 2 s."""


def test_everything_goes_on_after_a_server_stood_still(tmp_path: Path) -> None:
    with freezes.campaign(tmp_path / "data", "kafka", "consumer", KAFKA_S, SEED) as kafka:
        of_kafka = kafka.freeze()
        of_postgres = replace(kafka, server="postgres", freeze_s=POSTGRES_S).freeze()
        faults = kafka.faults()
    for freeze, who in ((of_kafka, "manager"), (of_postgres, "api")):
        assert freeze.recovered_s <= RECOVERED_WITHIN_S, freeze
        assert who in freeze.told, freeze
    assert not faults, "\n".join(faults[:40])
