"""What a call of the guarded client (runtime/http.py) can come to; this module needs no HTTP library."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

Cut = Literal["too_long", "too_slow", "broken"]
"""Why only the beginning of a body is there: more than was to be kept, the timeout, a lost connection."""


class SendError(Exception):
    """No complete answer came; the message is for people and holds no address, header or path."""


class TimedOut(SendError):
    """No answer came in time."""


class Refused(SendError):
    """We may not call this URL: its form or its address is not allowed."""


class Malformed(Refused):
    """The text is no URL that we would ever call, whatever the network says."""


@dataclass(frozen=True, slots=True)
class Response:
    """`headers` by name in lower case; the values of a repeated one are joined by commas. `body` is the raw
    answer, as it was sent and not decompressed: all of it, or its beginning when `cut` says why."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: Cut | None = None

    @property
    def whole(self) -> bool:
        """Whether `body` is all of the answer."""
        return self.cut is None


def retry_after_s(text: str | None, now: datetime, max_s: float) -> float:
    """Seconds asked for by a Retry-After header (RFC 9110 10.2.3), in 0 to `max_s`; 0 for no meaning."""
    if text is None:
        return 0.0
    if re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return float(min(int(text), max_s))
    at = instant(text)
    return 0.0 if at is None else min(max((at - now).total_seconds(), 0.0), float(max_s))


def instant(text: str) -> datetime | None:
    """The date of a header (RFC 9110 5.6.7), or None."""
    try:
        at = parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
