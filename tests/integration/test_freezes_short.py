"""A freeze of each server for a few seconds; `make faults` has 40 of 30 s."""

from pathlib import Path

import pytest

from tests.faults.harness import freezes
from tests.faults.harness.freezes import RECOVERED_WITHIN_S, Server

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

SEED = 20_261_130
FREEZE_S = 12.0
"""Longer than a session, so that the group drops its members."""


@pytest.mark.parametrize(("server", "protocol"), [("kafka", "consumer"), ("postgres", "classic")])
def test_everything_goes_on_after_a_server_stood_still(tmp_path: Path, server: Server, protocol: str) -> None:
    with freezes.campaign(tmp_path / "data", server, protocol, FREEZE_S, SEED) as campaign:
        freeze = campaign.freeze()
        faults = campaign.faults()
    assert freeze.recovered_s <= RECOVERED_WITHIN_S, freeze
    assert "manager" in freeze.told, freeze
    assert not faults, "\n".join(faults[:40])
