"""Retry policies: what is tried again, and when."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts import ids
from services.contracts.flow import Retry
from services.executor.core.retry import RETRY_AFTER_MAX_S, UNCOUNTED, again, next_at

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ATTEMPTS = st.integers(1, 10_000).map(lambda number: ids.attempt_id("e" * 40, "s", number))


@pytest.mark.parametrize(
    ("policy", "reason", "proposed", "repeated"),
    [
        (Retry(), "http_503", True, True),
        (Retry(), "http_404", False, False),
        (Retry(only_on=("http_404",)), "http_404", False, True),
        (Retry(only_on=("http_404",)), "http_503", True, False),
        (Retry(only_on=("http_404",)), "worker_lost", True, False),
        (Retry(stop_on=("http_503",)), "http_503", True, False),
        (Retry(stop_on=("http_503",)), "http_500", True, True),
        (Retry(only_on=("http_404",)), "worker_stopped", True, True),
        (Retry(stop_on=("worker_stopped",)), "worker_stopped", True, False),
    ],
)
def test_a_policy_decides_what_is_tried_again(
    policy: Retry, reason: str, proposed: bool, repeated: bool
) -> None:
    assert again(policy, reason, proposed=proposed) is repeated


@given(st.sampled_from(sorted(UNCOUNTED)), st.booleans())
def test_what_says_nothing_about_the_step_counts_only_when_its_worker_says_so(
    reason: str, proposed: bool
) -> None:
    assert again(Retry(only_on=("x",)), reason, proposed=proposed) is proposed


@given(
    ATTEMPTS,
    st.integers(1, 500),
    st.floats(0, 1000),
    st.floats(0, 100_000),
    st.floats(0, 1),
)
def test_a_pause_stays_within_its_bounds(
    attempt_id: str, failures: int, backoff_s: float, backoff_max_s: float, jitter: float
) -> None:
    policy = Retry(backoff_s=backoff_s, backoff_max_s=backoff_max_s, jitter=jitter)
    at = next_at(policy, attempt_id, failures, NOW, None)
    nominal = min(backoff_max_s, backoff_s * 2.0 ** min(failures - 1, 30))
    least, most = (timedelta(seconds=nominal * share) for share in (1 - jitter, 1 + jitter))
    grain = timedelta(microseconds=1)
    assert least - grain <= at - NOW <= most + grain
    assert at == next_at(policy, attempt_id, failures, NOW, None), "drawn from the attempt's id"


@pytest.mark.parametrize("asked_for", [None, {}, {"retry_after_s": "9"}, {"retry_after_s": -1}, [], "x"])
def test_what_is_no_wish_for_a_pause_is_none(asked_for: object) -> None:
    policy = Retry(jitter=0)
    assert next_at(policy, "0" * 40, 1, NOW, asked_for) == NOW + timedelta(seconds=1)


def test_a_receiver_may_ask_for_a_longer_pause_but_not_for_ever() -> None:
    policy = Retry(jitter=0, backoff_s=10)
    for wanted, found in ((5, 10), (40, 40), (RETRY_AFTER_MAX_S, RETRY_AFTER_MAX_S), (1e9, 10)):
        at = next_at(policy, "0" * 40, 1, NOW, {"retry_after_s": wanted})
        assert at == NOW + timedelta(seconds=found)
