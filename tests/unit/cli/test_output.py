"""What commands print: numbers with their nouns."""

import pytest

from services.cli import output


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 faults"), (1, "1 fault"), (2, "2 faults"), (18_460, "18,460 faults")]
)
def test_one_is_singular(number: int, told: str) -> None:
    assert output.count(number, "fault") == told


def test_an_amount_has_units() -> None:
    assert output.amount(1, 1) == "1 row, 1 byte"
    assert output.amount(18_460, 1_725_381) == "18,460 rows, 1.7 MB"
