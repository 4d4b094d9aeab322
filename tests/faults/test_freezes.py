"""Kafka and PostgreSQL stand still for 30 s, 40 times each; everything has to go on within 30 s by itself.

FREEZES and FREEZE_S choose how often and for how long. The three campaigns share nothing and can run side by
side: `pytest tests/faults/test_freezes.py -m faults -k kafka-classic`, `-k kafka-consumer`, `-k postgres`.
"""

import os
from collections.abc import Iterator

import pytest

from services.runtime import entropy
from tests.faults.harness import freezes, report
from tests.faults.harness.freezes import RECOVERED_WITHIN_S, Campaign

pytestmark = [pytest.mark.faults]

FREEZES = int(os.environ.get("FREEZES") or 40)
FREEZE_S = float(os.environ.get("FREEZE_S") or 30)
SEED = int(os.environ.get("FAULTS_SEED") or int.from_bytes(entropy.token(3)))
CAMPAIGNS = (("kafka", "classic"), ("kafka", "consumer"), ("postgres", "consumer"))


@pytest.fixture(scope="module", params=CAMPAIGNS, ids="-".join)
def campaign(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Campaign]:
    """One system for all freezes of a server; the table is printed at the end, failed ones included."""
    server, protocol = request.param
    folder = tmp_path_factory.mktemp("freezes") / "data"
    with freezes.campaign(folder, server, protocol, FREEZE_S, SEED) as made:
        yield made
        report.say(pytestconfig, f"seed {SEED}\n{made.table()}")


@pytest.mark.parametrize("number", range(1, FREEZES + 1))
def test_everything_goes_on_within_30_s(campaign: Campaign, number: int) -> None:
    freeze = campaign.freeze()
    assert freeze.recovered_s <= RECOVERED_WITHIN_S, freeze


def test_nothing_is_lost_or_doubled(campaign: Campaign) -> None:
    faults = campaign.faults()
    assert not faults, "\n".join(faults[:40])
