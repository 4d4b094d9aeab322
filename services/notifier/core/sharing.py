"""Which of the deliveries that are due go out now, so that no tenant keeps the others waiting."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery whose instant has come."""

    delivery_id: str
    tenant: str
    destination: str


def chosen(due: Iterable[Due], busy: Mapping[str, int], free: Mapping[str, int], total: int) -> list[str]:
    """The ids of those to send, tenants in turn, each in the order given.

    `busy`: attempts in flight by tenant, of `total` slots; `free`: how many more each destination takes. A
    tenant gets at most half of the slots that the others leave it, and one at least while there is one: so a
    slot is free for whoever comes, however many receivers of a single tenant hang.
    """
    waiting: dict[str, deque[Due]] = {}
    for one in due:
        waiting.setdefault(one.tenant, deque()).append(one)
    taken, room = Counter(busy), Counter(free)
    found: list[str] = []
    while waiting:
        for tenant, own in [*waiting.items()]:
            following = _next(own, room)
            if following is None or taken[tenant] >= share(taken, tenant, total):
                del waiting[tenant]
                continue
            taken[tenant] += 1
            room[following.destination] -= 1
            found.append(following.delivery_id)
    return found


def share(busy: Counter[str], tenant: str, total: int) -> int:
    """How many slots a tenant may have while the others have theirs."""
    left = total - (busy.total() - busy[tenant])
    return min(left, max(1, left // 2))


def _next(own: deque[Due], room: Counter[str]) -> Due | None:
    while own:
        one = own.popleft()
        if room[one.destination] > 0:
            return one
    return None
