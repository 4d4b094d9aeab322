"""What commands print: numbers with their nouns, and instants."""

import pytest

from services.cli import output, views, watching


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 faults"), (1, "1 fault"), (2, "2 faults"), (18_460, "18,460 faults")]
)
def test_one_is_singular(number: int, told: str) -> None:
    assert output.count(number, "fault") == told


def test_an_amount_has_units() -> None:
    assert output.amount(1, 1) == "1 row, 1 byte"
    assert output.amount(18_460, 1_725_381) == "18,460 rows, 1.7 MB"


def test_an_instant_reads_alike_in_events_and_in_what_is_shown() -> None:
    event = {"step": "ask", "reason": "approval", "until": "2026-01-05T09:00:00.123Z"}
    waiting = {**event, "approval": None}
    told = watching.detail({"type": "step.waiting", **event})
    assert told == "ask: approval until 2026-01-05 09:00:00Z"
    assert views.waiting(waiting) == "approval of ask until 2026-01-05 09:00:00Z"
