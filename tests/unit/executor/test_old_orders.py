"""How old an order may be for a worker to begin it without asking, by a clock that the test sets."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.contracts import topics
from services.executor.core.decide import ORDERS_KEPT
from services.executor.work.control import KEPT, ORDERS_TRUSTED, must_ask

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOPICS = Path(__file__).parents[3] / "schemas" / "topics.yaml"


@pytest.mark.parametrize(
    ("age", "asks"),
    [
        (timedelta(), False),
        (24 * HOUR, False),
        (24 * HOUR + timedelta(seconds=1), True),
        (26 * HOUR, True),
        (timedelta(days=30), True),
        (-HOUR, False),
    ],
)
def test_an_order_older_than_a_day_is_asked_about(age: timedelta, asks: bool) -> None:
    assert must_ask(NOW - age, NOW) is asks


def test_revocations_and_orders_are_kept_longer_than_they_are_relied_on() -> None:
    declared = topics.parse(TOPICS.read_text(encoding="utf-8"))
    kept = {topic.name: timedelta(milliseconds=topic.retention_ms) for topic in declared}
    assert kept["step.control"] >= KEPT >= ORDERS_TRUSTED + HOUR
    for name in ("step.requested", "step.requested.long"):
        assert kept[name] >= ORDERS_KEPT + 24 * HOUR
