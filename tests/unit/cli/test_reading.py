"""Values of the command line: JSON by the rules of the api, or text."""

import pytest

from services.cli import reading
from services.cli.failure import Exit, Failed


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("1", 1),
        ('"1"', "1"),
        ("null", None),
        ("north", "north"),
        ('{"a": [1.5]}', {"a": [1.5]}),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_a_value_is_json_or_else_text(given: str, value: object) -> None:
    assert reading.parameter(f"x={given}", "--value") == ("x", value)


@pytest.mark.parametrize(
    "given",
    [
        "NaN",
        "-Infinity",
        "1e999",
        '{"a": 1, "a": 2}',
        "9" * 20,
        "9" * 5000,
        '"\\u0000"',
        '"\\ud800"',
        "[" * 99999,
    ],
)
def test_what_the_api_would_not_read_is_refused(given: str) -> None:
    with pytest.raises(Failed, match="--value x: expected JSON as the api reads it") as caught:
        reading.parameter(f"x={given}", "--value")
    assert caught.value.code == Exit.USAGE_OR_CANCELLED
