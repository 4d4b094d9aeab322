"""When an attempt that failed is tried again."""

from datetime import datetime, timedelta

FIRST_S = 1.0
LONGEST_S = 60.0
LONGEST_UNCOUNTED_S = 30.0
SPREAD = 0.2

UNCOUNTED = frozenset({"blobs_unavailable", "source_unavailable", "worker_stopped"})
"""Reasons that say nothing about the step: something it needs was away. Tried until the step's timeout."""


def retry_at(attempt_id: str, failures: int, longest_s: float, now: datetime) -> datetime:
    """1 s doubling with each failure so far (from 1) up to `longest_s`, spread by up to 20 % either way.

    The spread is drawn from the attempt's id, so the same decision made twice gives the same instant.
    """
    wait_s = min(longest_s, FIRST_S * 2.0 ** min(failures - 1, 10))
    draw = int(attempt_id[:8], 16) / 0xFFFFFFFF * 2 - 1
    return now + timedelta(seconds=wait_s * (1 + SPREAD * draw))
