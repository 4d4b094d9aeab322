"""When an attempt that failed is tried again."""

from datetime import datetime, timedelta

FIRST_S = 1.0
LONGEST_S = 60.0
SPREAD = 0.2


def retry_at(attempt_id: str, attempt: int, now: datetime) -> datetime:
    """1 s doubling to 60 s, spread by up to 20 % either way.

    The spread is drawn from the attempt's id, so the same decision made twice gives the same instant.
    """
    wait_s = min(LONGEST_S, FIRST_S * 2.0 ** min(attempt - 1, 10))
    draw = int(attempt_id[:8], 16) / 0xFFFFFFFF * 2 - 1
    return now + timedelta(seconds=wait_s * (1 + SPREAD * draw))
