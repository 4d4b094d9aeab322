"""How much of the process one client may take: so many at once, and so many a second.

Everything here belongs to the event loop that serves HTTP.
"""

import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Any

BURST_S = 2.0
BUCKETS_MAX = 10_000
IPV6_BITS = 64  # what one subscriber has at least
HELD = "millstream.held"


class Places:
    """Places that are taken for as long as something lasts: `each` for one client, `total` for all.

    0 is no bound.
    """

    def __init__(self, each: int = 0, total: int = 0) -> None:
        self._each, self._total = each, total
        self._taken: Counter[str] = Counter()
        self.taken = 0

    def is_full(self) -> bool:
        """Whether nobody gets a place."""
        return bool(self._total) and self.taken >= self._total

    def take(self, who: str) -> bool:
        """Take a place for a client; False when it has none left."""
        if self.is_full() or (self._each and self._taken[who] >= self._each):
            return False
        self._taken[who] += 1
        self.taken += 1
        return True

    def give_back(self, who: str) -> None:
        """Give one place of this client back."""
        self.taken -= 1
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]

    def hold(self, scope: MutableMapping[str, Any], who: str) -> bool:
        """Take a place until the request of this ASGI scope has ended."""
        if not self.take(who):
            return False
        held: list[Callable[[], None]] = scope.setdefault(HELD, [])
        held.append(partial(self.give_back, who))
        return True


def release(scope: MutableMapping[str, Any]) -> None:
    """Give back every place that the request holds."""
    for give_back in scope.pop(HELD, ()):
        give_back()


class Rates:
    """A token bucket for each client: `per_s` a second, at most BURST_S seconds' worth. 0 is no bound."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, who: str, now: float | None = None) -> float:
        """Take a token: 0.0; or take none: seconds until there is one. `now` is monotonic."""
        if not self._per_s:
            return 0.0
        now = time.monotonic() if now is None else now
        full = max(1.0, self._per_s * BURST_S)
        tokens, at = self._buckets.get(who, (full, now))
        tokens = min(full, tokens + (now - at) * self._per_s)
        if tokens < 1.0:
            return (1.0 - tokens) / self._per_s
        if who not in self._buckets and len(self._buckets) >= BUCKETS_MAX:
            self._forget(now)
        self._buckets[who] = (tokens - 1.0, now)
        return 0.0

    def put_back(self, who: str) -> None:
        """Undo a `take` that had a token."""
        if who in self._buckets:
            tokens, at = self._buckets[who]
            self._buckets[who] = (tokens + 1.0, at)

    def _forget(self, now: float) -> None:
        """A bucket that has had time to fill is as good as none."""
        filled_s = max(BURST_S, 1.0 / self._per_s)
        kept = {who: bucket for who, bucket in self._buckets.items() if now - bucket[1] < filled_s}
        self._buckets = kept if len(kept) < BUCKETS_MAX else {}


def of_address(address: str) -> str:
    """The client that an address stands for: itself, or its network of 64 bits in IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> IPV6_BITS:x}/{IPV6_BITS}"
