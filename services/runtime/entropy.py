"""The only place where a clock or randomness enters Millstream.

Decisions take `now` as an argument. Where several processes must agree, `now` is the database's time, read
at start and every 5 s and advanced by the monotonic clock: the clocks of workers and callers decide nothing.
"""

import random
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

RESYNC_S = 5.0
"""Also how soon at the latest a process that has nothing to do asks whether its database is there."""


class Clock(Protocol):
    """Something that knows what time it is (aware, UTC)."""

    def now(self) -> datetime:
        """The current instant; never blocks for long, never goes back by more than a resync corrects."""


class LocalClock:
    """This machine's clock: for stamps that nobody decides by."""

    def now(self) -> datetime:
        """The machine's time in UTC."""
        return datetime.now(UTC)


class RemoteClock:
    """Another machine's time (the database's), advanced by our monotonic clock between readings."""

    def __init__(self, read: Callable[[], datetime]) -> None:
        """`read` returns the remote time; it may raise, and then the last reading is advanced further."""
        self._read = read
        self._base = read()
        self._at = time.monotonic()

    def now(self) -> datetime:
        """The remote instant."""
        return self._base + timedelta(seconds=time.monotonic() - self._at)

    def resync_if_due(self) -> None:
        """Read the remote time again if the reading is older than RESYNC_S. Raises what `read` raises."""
        if time.monotonic() - self._at >= RESYNC_S:
            base = self._read()
            self._base, self._at = base, time.monotonic()


def token(bytes_: int = 32) -> bytes:
    """Unguessable bytes, for keys and nonces."""
    return secrets.token_bytes(bytes_)


def fresh_id() -> str:
    """A random 40-hex id, of the same shape as derived execution ids."""
    return secrets.token_hex(20)


def fresh_uuid() -> str:
    """A random UUID, for messages."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def jitter() -> float:
    """A number in [-1, 1] for spreading retries."""
    return random.uniform(-1.0, 1.0)
