"""When an attempt that failed is tried again."""

from datetime import datetime, timedelta

from services.contracts.commands import ORDER_EXPIRED, Json
from services.contracts.flow import Retry

FIRST_S = 1.0
LONGEST_S = 60.0
LONGEST_UNCOUNTED_S = 30.0
SPREAD = 0.2

UNCOUNTED = frozenset(
    {"blobs_unavailable", "source_unavailable", "worker_full", "worker_stopped", ORDER_EXPIRED}
)
"""Reasons that say nothing about the step: something it needs was away. Tried until the step's timeout."""


RETRY_AFTER_MAX_S = 3600.0
"""The longest pause that a receiver may ask for."""


def retry_at(
    attempt_id: str,
    failures: int,
    longest_s: float,
    now: datetime,
    first_s: float = FIRST_S,
    spread: float = SPREAD,
) -> datetime:
    """`first_s` doubling with each failure so far (from 1) up to `longest_s`, spread by a share either way.

    The spread is drawn from the attempt's id, so the same decision made twice gives the same instant.
    """
    wait_s = min(longest_s, first_s * 2.0 ** min(failures - 1, 30))
    draw = int(attempt_id[:8], 16) / 0xFFFFFFFF * 2 - 1
    return now + timedelta(seconds=wait_s * (1 + spread * draw))


def again(policy: Retry, reason: str, *, proposed: bool) -> bool:
    """Whether an attempt that ended for this reason is repeated; `proposed`: its worker would do so.

    What says nothing about the step is repeated whatever `only_on` names: it was not the step that failed.
    """
    if reason in policy.stop_on:
        return False
    if reason in UNCOUNTED and proposed:
        return True
    return reason in policy.only_on if policy.only_on else proposed


def next_at(policy: Retry, attempt_id: str, failures: int, now: datetime, asked_for: Json) -> datetime:
    """The policy's pause, or a longer one that the receiver asked for (Retry-After)."""
    at = retry_at(attempt_id, failures, policy.backoff_max_s, now, policy.backoff_s, policy.jitter)
    wanted = asked_for.get("retry_after_s") if isinstance(asked_for, dict) else None
    if not isinstance(wanted, int | float) or not 0 < wanted <= RETRY_AFTER_MAX_S:
        return at
    return max(at, now + timedelta(seconds=wanted))
