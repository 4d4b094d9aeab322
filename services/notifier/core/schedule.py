"""When a delivery is tried again, and when it is given up."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.runtime.exchange import retry_after_s

# Ten attempts over about 2.9 days: quick while a receiver restarts, patient while people sleep.
DELAYS_S = (2, 10, 60, 300, 1_800, 7_200, 28_800, 86_400, 129_600)
ATTEMPTS = len(DELAYS_S) + 1
JITTER = 0.2
RETRY_AFTER_MAX_S = 86_400
GONE = 410
WITH_RETRY_AFTER = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Result:
    """How one attempt ended: an answer (`status`), or none and the reason (`error`).

    `permanent`: no later attempt can do better, for example because the URL is malformed.
    """

    status: int | None = None
    error: str | None = None
    retry_after: str | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The next attempt is due at `at`."""

    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """There will be no further attempt."""

    reason: str


Outcome = Delivered | RetryAt | GiveUp


def after_attempt(attempt: int, result: Result, now: datetime, jitter: float) -> Outcome:
    """What follows from the result of attempt number `attempt` (from 1); `jitter` is in [-1, 1].

    Only 2xx is a delivery: a redirect is not followed, so its answer proves nothing (Standard Webhooks).
    """
    status = result.status
    if status is not None and 200 <= status < 300:
        return Delivered()
    reason = result.error or f"the receiver answered {status}"
    if status == GONE:
        return GiveUp(f"{reason} (gone): it wants no more of these")
    if result.permanent:
        return GiveUp(reason)
    if attempt >= ATTEMPTS:
        return GiveUp(f"{reason}; attempt {attempt} was the last")
    delay_s = DELAYS_S[attempt - 1] * (1 + JITTER * jitter)
    if status in WITH_RETRY_AFTER:
        asked_s = retry_after_s(result.retry_after, now, RETRY_AFTER_MAX_S)
        # Only ever later than asked: many deliveries hear the same instant.
        delay_s = max(delay_s, asked_s * (1 + JITTER * (1 + jitter) / 2))
    return RetryAt(now + timedelta(seconds=delay_s), reason)
