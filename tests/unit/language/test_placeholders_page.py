"""docs/placeholders.md against the code: every example and every limit."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.contracts import callbacks, urls
from services.language import placeholders
from services.language.placeholders import headers
from services.language.values import DEPTH_MAX

PAGE = (Path(__file__).parents[3] / "docs" / "placeholders.md").read_text(encoding="utf-8")
FILL: Mapping[str, Any] = {
    "data": placeholders.fill_data,
    "header": placeholders.fill_headers,
    "query": placeholders.fill_query,
    "url": placeholders.fill_url,
    "url, allow_host": partial(placeholders.fill_url, allow_host=True),
}


def rows(heading: str) -> list[tuple[str, ...]]:
    text = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip(" `") for cell in line.strip("|").split(" | ")) for line in lines[1:]]


def values() -> Any:
    found = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert found, "expected values in JSON"
    return json.loads(found[1])


@pytest.mark.parametrize(("place", "template", "expected"), rows("Examples"))
def test_an_example_gives_what_it_says(place: str, template: str, expected: str) -> None:
    assert json.dumps(FILL[place](json.loads(template), values()), ensure_ascii=False) == expected


def test_there_are_examples_of_every_place() -> None:
    assert {row[0] for row in rows("Examples")} == FILL.keys()


def test_limits_are_those_of_the_code() -> None:
    assert [int(row[1].replace(",", "")) for row in rows("Limits")] == [
        placeholders.REFERENCES_MAX,
        placeholders.BYTES_MAX,
        urls.MAX_LENGTH,
        callbacks.MAX_VALUE_CHARS,
        headers.HEADERS_MAX,
        DEPTH_MAX,
    ]
