"""The status tables, read both ways: every internal word has its public ones, and the other way round."""

import re
from pathlib import Path

import pytest

from services.contracts.events import ALIASES, TERMINAL, TYPES, matching
from services.contracts.status import WORDS, Status, StepStatus, Words

ROOT = Path(__file__).parents[2]

# The words of the data-exhaust API (S1), the reporting history (S0) and the service request (S3).
EXHAUST = {"SUBMITTED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"}
REPORTING = {"pending", "processing", "completed", "completed_with_warnings", "failed"}
REQUEST = {"Not Started", "Running", "Pending", "Completed", "Failed", "Cancelled"}

TABLE = {
    "pending": ("SUBMITTED", "pending", "Not Started"),
    "running": ("PROCESSING", "processing", "Running"),
    "waiting": ("PROCESSING", "processing", "Pending"),
    "completed": ("COMPLETED", "completed", "Completed"),
    "completed_with_warnings": ("COMPLETED", "completed_with_warnings", "Completed"),
    "failed": ("FAILED", "failed", "Failed"),
    "rejected": ("FAILED", "failed", "Failed"),
    "cancelled": ("CANCELLED", "failed", "Cancelled"),
}


def test_every_status_has_its_words() -> None:
    assert {status.value: (w.exhaust, w.reporting, w.request) for status, w in WORDS.items()} == TABLE
    assert set(WORDS) == set(Status)


def test_every_public_word_has_a_status() -> None:
    assert {words.exhaust for words in WORDS.values()} == EXHAUST
    assert {words.reporting for words in WORDS.values()} == REPORTING
    assert {words.request for words in WORDS.values()} == REQUEST


@pytest.mark.parametrize("surface", ["exhaust", "reporting", "request"])
def test_no_public_word_hides_whether_it_is_over(surface: str) -> None:
    for word in {getattr(words, surface) for words in WORDS.values()}:
        behind = {status for status, words in WORDS.items() if getattr(words, surface) == word}
        assert len({status.terminal for status in behind}) == 1, f"{word}: {behind}"


def test_no_two_statuses_look_the_same_on_every_surface_but_failed_and_rejected() -> None:
    seen: dict[Words, set[Status]] = {}
    for status, words in WORDS.items():
        seen.setdefault(words, set()).add(status)
    assert [same for same in seen.values() if len(same) > 1] == [{Status.FAILED, Status.REJECTED}]


def test_steps_have_the_five_words_of_the_request() -> None:
    assert {status.value for status in StepStatus} == REQUEST - {"Pending"}
    assert {status for status in StepStatus if status.terminal} == {
        StepStatus.FAILED,
        StepStatus.CANCELLED,
        StepStatus.COMPLETED,
    }


def test_aliases_and_types_name_each_other() -> None:
    assert set().union(*ALIASES.values()) <= set(TYPES)
    assert not set(ALIASES) & set(TYPES)
    assert ALIASES["on-execution-complete"] == TERMINAL <= ALIASES["EXECUTION"]
    assert matching(("EXECUTION", "TASK")) == {
        name for name in TYPES if name.startswith(("execution.", "step."))
    }
    assert matching(()) == set(TYPES)
    with pytest.raises(KeyError):
        matching(("on-nothing",))


def test_the_documented_table_is_the_table_of_the_code() -> None:
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \| ([\w ]+) \|$", text, re.MULTILINE)
    assert {row[0]: row[1:] for row in rows} == TABLE
