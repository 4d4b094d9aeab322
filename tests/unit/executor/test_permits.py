"""Who gets a permit and who waits: as a book, without a database."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.core import limits
from services.executor.core.permits import Book, Want, settle
from tests.service.executor.house import job

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def want(what: str, id: str, *, most: int = 1, age: int = 0) -> Want:
    return Want(what, "k", id, most, NOW - timedelta(seconds=age))  # type: ignore[arg-type]


def test_a_permit_is_taken_and_the_second_is_refused() -> None:
    settled = settle({"k": Book()}, [want("take", "a"), want("take", "b")])
    assert settled.taken == [("k", "a")] and settled.refused == {("k", "b")}


def test_a_release_gives_its_permit_to_the_oldest_waiter() -> None:
    book = Book({"a"}, {"young": (NOW, 1), "old": (NOW - timedelta(hours=1), 1)})
    settled = settle({"k": book}, [want("take", "new"), want("release", "a")])
    assert settled.taken == [("k", "old")] and settled.woken == ["old"]
    assert settled.refused == {("k", "new")} and set(book.waiters) == {"young"}


def test_who_would_wait_although_there_is_a_permit_is_told() -> None:
    assert settle({"k": Book()}, [want("wait", "a")]).opened == {("k", "a")}
    assert settle({"k": Book({"a"})}, [want("wait", "a")]).opened == {("k", "a")}
    assert settle({"k": Book({"b"})}, [want("wait", "a")]).waiting == [want("wait", "a")]


def test_who_ends_in_the_same_batch_never_took_it() -> None:
    settled = settle({"k": Book()}, [want("take", "a"), want("release", "a"), want("take", "b")])
    assert settled.taken == [("k", "b")] and not settled.refused


def test_a_permit_is_taken_again_without_harm() -> None:
    settled = settle({"k": Book({"a"})}, [want("take", "a")])
    assert not settled.taken and not settled.refused


@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "wait", "release"]), st.sampled_from("abcdef")),
        max_size=60,
    ),
    st.integers(1, 3),
)
def test_never_more_hold_than_the_limit_and_no_permit_lies_unused(
    moves: list[tuple[str, str]], most: int
) -> None:
    book = Book()
    for number, (what, id) in enumerate(moves):
        trial = deepcopy(book)
        settled = settle({"k": trial}, [want(what, id, most=most, age=-number)])
        if not settled.refused and not settled.opened:
            book = trial
        assert len(book.holders) <= most
        assert not book.holders & set(book.waiters)
        assert not book.waiters or len(book.holders) == most


def test_limits_are_taken_in_one_order_and_are_the_tenants_own() -> None:
    named = [
        {"key": "tenant", "max": 3},
        {"key": "pipeline:p", "max": 2, "holds_paused": True},
        {"key": "key:x", "max": 1},
    ]
    found = limits.of(job(limits=named))
    assert [limit.key for limit in found] == ["acme/key:x", "acme/pipeline:p", "acme/tenant"]


@pytest.mark.parametrize(
    ("held", "left"),
    [("", "xpt"), ("x", "xpt"), ("xp", "t"), ("xpt", "t")],
    ids=["nothing", "before", "up to it", "all"],
)
def test_what_is_kept_over_a_pause_is_a_beginning_of_the_order(held: str, left: str) -> None:
    wanted = tuple(limits.Limit(key, 1, key == "p") for key in "xpt")
    assert "".join(limit.key for limit in limits.given_back(wanted, held)) == left


@pytest.mark.parametrize(
    "wrong",
    [
        "tenant",
        [{"key": "tenant"}],
        [{"key": "tenant", "max": 0}],
        [{"key": "tenant", "max": True}],
        [{"key": "", "max": 1}],
        [{"key": "tenant", "max": 1, "more": 1}],
        [{"key": "tenant", "max": 1, "holds_paused": 1}],
        [{"key": "tenant", "max": 1}, {"key": "tenant", "max": 2}],
        [{"key": f"key:{number}", "max": 1} for number in range(11)],
    ],
    ids=str,
)
def test_a_limit_of_another_form_is_refused(wrong: object) -> None:
    assert [*limits.faults(job(limits=wrong))]
