"""When a delivery is tried again, as tables and as laws."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.core.schedule import (
    ATTEMPTS,
    DELAYS_S,
    JITTER,
    RETRY_AFTER_MAX_S,
    Delivered,
    GiveUp,
    Outcome,
    Result,
    RetryAt,
    after_attempt,
)
from services.runtime.exchange import retry_after_s

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAILED = Result(status=500)


def delay_s(outcome: Outcome) -> float:
    assert isinstance(outcome, RetryAt)
    return (outcome.at - NOW).total_seconds()


def test_ten_attempts_take_about_three_days_and_begin_quickly() -> None:
    assert ATTEMPTS == 10
    assert 2.5 * 86_400 < sum(DELAYS_S) < 3.5 * 86_400
    assert DELAYS_S[0] * (1 - JITTER) >= 1
    assert DELAYS_S[0] * (1 + JITTER) <= 5
    assert list(DELAYS_S) == sorted(DELAYS_S)


@pytest.mark.parametrize(
    ("result", "outcome", "words"),
    [
        (Result(status=200), Delivered, ""),
        (Result(status=204), Delivered, ""),
        (Result(status=299), Delivered, ""),
        (Result(status=199), RetryAt, "answered 199"),
        (Result(status=301), RetryAt, "answered 301"),
        (Result(status=302), RetryAt, "answered 302"),
        (Result(status=304), RetryAt, "answered 304"),
        (Result(status=307), RetryAt, "answered 307"),
        (Result(status=400), RetryAt, "answered 400"),
        (Result(status=404), RetryAt, "answered 404"),
        (Result(status=410), GiveUp, "gone"),
        (Result(status=429), RetryAt, "answered 429"),
        (Result(status=500), RetryAt, "answered 500"),
        (Result(status=503), RetryAt, "answered 503"),
        (Result(error="no answer within 15 s"), RetryAt, "no answer within 15 s"),
        (Result(error="url: expected ...", permanent=True), GiveUp, "url: expected ..."),
    ],
)
def test_what_follows_from_the_first_attempt(result: Result, outcome: type[Outcome], words: str) -> None:
    found = after_attempt(1, result, NOW, 0)
    assert isinstance(found, outcome)
    assert isinstance(found, Delivered) or words in found.reason


def test_the_last_attempt_ends_it() -> None:
    last = after_attempt(ATTEMPTS, FAILED, NOW, 0)
    assert last == GiveUp("the receiver answered 500; attempt 10 was the last")
    assert after_attempt(ATTEMPTS, Result(status=200), NOW, 0) == Delivered()


@given(
    st.integers(1, ATTEMPTS - 1),
    st.floats(-1, 1),
    st.integers(100, 599).filter(lambda code: code // 100 != 2),
)
def test_the_delay_keeps_within_its_jitter(attempt: int, jitter: float, status: int) -> None:
    if status == 410:
        return
    found = delay_s(after_attempt(attempt, Result(status=status), NOW, jitter))
    step = DELAYS_S[attempt - 1]
    assert step * (1 - JITTER) - 1e-3 <= found <= step * (1 + JITTER) + 1e-3


@given(st.integers(1, ATTEMPTS - 2), st.floats(-1, 1), st.floats(-1, 1))
def test_a_later_attempt_never_waits_less(attempt: int, one: float, other: float) -> None:
    sooner = delay_s(after_attempt(attempt, FAILED, NOW, one))
    later = delay_s(after_attempt(attempt + 1, FAILED, NOW, other))
    assert later >= sooner * (1 - JITTER)


@given(
    st.integers(1, ATTEMPTS - 1),
    st.floats(-1, 1),
    st.sampled_from([429, 503]),
    st.integers(0, 10**15),
)
def test_retry_after_is_obeyed_up_to_a_day(attempt: int, jitter: float, status: int, seconds: int) -> None:
    found = delay_s(after_attempt(attempt, Result(status=status, retry_after=str(seconds)), NOW, jitter))
    asked = min(seconds, RETRY_AFTER_MAX_S)
    assert found >= asked - 1e-3
    assert found <= max(asked, DELAYS_S[attempt - 1]) * (1 + JITTER) + 1e-3


@pytest.mark.parametrize("status", [500, 502, 504, 302, 404])
def test_retry_after_counts_only_where_it_is_defined_for_overload(status: int) -> None:
    assert delay_s(after_attempt(1, Result(status=status, retry_after="3600"), NOW, 0)) == DELAYS_S[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        ("7", 7),
        ("86401", 86_400),
        ("9" * 18, 86_400),
        ("9" * 19, 0),
        ("-5", 0),
        ("1.5", 0),
        ("٣", 0),
        ("soon", 0),
        ("Sun, 01 Mar 2026 12:01:40 GMT", 100),
        ("Sunday, 01-Mar-26 12:01:40 GMT", 100),
        ("Sun Mar  1 12:01:40 2026", 100),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Sun, 32 Mar 2026 12:00:00 GMT", 0),
        ("Sun, 01 Mar 2026 25:61:61 GMT", 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(text: str | None, seconds: float) -> None:
    assert retry_after_s(text, NOW, RETRY_AFTER_MAX_S) == seconds


@given(st.text(max_size=60))
def test_any_retry_after_is_within_bounds(text: str) -> None:
    assert 0 <= retry_after_s(text, NOW, RETRY_AFTER_MAX_S) <= RETRY_AFTER_MAX_S


@given(st.integers(0, 200_000))
def test_a_date_is_as_good_as_seconds(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_s(date, NOW, RETRY_AFTER_MAX_S) == min(seconds, RETRY_AFTER_MAX_S)
