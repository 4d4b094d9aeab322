"""The published figures follow from the published samples."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import figures

RESULTS = Path(__file__).with_name("results.json")
FIELDS = {
    *("name", "figure", "goal", "better", "holds", "unit", "about", "peer", "samples", "peer_samples"),
    *("versions", "commit", "cpu", "load"),
}


def entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry["name"])
def test_figure_and_verdict_follow_from_the_samples(entry: dict[str, Any]) -> None:
    assert entry.keys() == FIELDS
    assert len(entry["samples"]) >= figures.ROUNDS_MIN
    assert len(entry["peer_samples"]) in {0, len(entry["samples"])}
    assert entry["figure"] == figures.figure(entry["samples"], entry["peer_samples"])
    assert entry["holds"] == figures.holds(entry["figure"], entry["goal"], entry["better"])


def test_every_figure_is_published_once() -> None:
    names = [entry["name"] for entry in entries()]
    assert len(names) == len(set(names))


def test_a_ratio_is_that_of_the_medians() -> None:
    assert figures.figure([1, 9, 2, 3, 8], [1.5, 1, 2, 9, 1.5]) == 2
    assert figures.figure([1, 9, 2, 3, 8], []) == 3
    assert figures.holds(8, 8, "higher") and figures.holds(8, 8, "lower")
    assert not figures.holds(7.9, 8, "higher") and not figures.holds(8.1, 8, "lower")
