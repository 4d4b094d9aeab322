"""Signed links: only the link itself opens the file, until it expires."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.core.links import Links

KEYS = {"k1": bytes(32), "k0": bytes([1]) * 32}
LINKS = Links(KEYS, 60)
ID = "a" * 40
QUERY = LINKS.link("acme", ID, "x.csv", 1_000_000)[0].partition("?")[2]


def permits(
    query: str = QUERY, tenant: str = "acme", id: str = ID, name: str = "x.csv", now_s: float = 1e6
) -> bool:
    return LINKS.permits(query, tenant, id, name, now_s) is not None


def test_opens_until_it_expires() -> None:
    assert permits()
    assert permits(now_s=1_000_059.9)
    assert not permits(now_s=1_000_060)


def test_names_are_percent_encoded() -> None:
    assert LINKS.link("acme", ID, "a b/ü?.csv", 0)[0].startswith(f"/files/{ID}/a%20b%2F%C3%BC%3F.csv?")


@pytest.mark.parametrize(
    "changed", [{"tenant": "acm"}, {"id": "b" * 40}, {"name": "y.csv"}, {"tenant": "", "name": "acmex.csv"}]
)
def test_belongs_to_one_file_of_one_tenant(changed: dict[str, Any]) -> None:
    assert not permits(**changed)


def test_an_older_key_verifies_and_a_foreign_one_does_not() -> None:
    old = Links({"k0": KEYS["k0"]}, 60).link("acme", ID, "x.csv", 1_000_000)[0].partition("?")[2]
    assert permits(old)
    foreign = Links({"k0": bytes([2]) * 32}, 60).link("acme", ID, "x.csv", 1_000_000)[0].partition("?")[2]
    assert not permits(foreign)


@given(st.integers(0, len(QUERY) - 1), st.characters(codec="latin-1"))
def test_any_changed_character_closes_it(index: int, char: str) -> None:
    changed = QUERY[:index] + char + QUERY[index + 1 :]
    assert permits(changed) == (changed == QUERY)


@given(st.text())
def test_any_text_is_answered(query: str) -> None:
    assert not permits(query)
