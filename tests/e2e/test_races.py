"""Two deciders at once, by two api processes; `make faults` runs a thousand of these races."""

from pathlib import Path

import pytest

from tests.faults.harness import races
from tests.local import Local

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

RACES = 50
SEED = 20_261_121


def test_one_of_two_deciders_wins(local: Local, tmp_path: Path) -> None:
    with races.second_api(local.state, tmp_path) as other:
        faults, won = races.run(local.state, other, RACES, SEED)
    assert not faults, "\n".join(faults)
    assert sum(won.values()) - won["202 first"] == RACES
