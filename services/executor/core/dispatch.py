"""Who may be asked for now: at most so many steps of an index are out, and the others wait their turn.

A desk keeps one lane of one partition index: how many attempts are out, and which executions wait for room.
The tenants that wait take turns; of a tenant's own the highest class goes first, and of a class the oldest.
A class rises with the wait: low is normal after RISE, high after two of them. After three it is *overdue*:
every second turn of its tenant belongs to the oldest overdue one, so that no flood of higher ones holds it
back for ever, and no flood of overdue ones holds back what is high.

How much room there is follows the workers' lanes (core/pace.py).

The last quarter of the room is kept for tenants that have little out: who comes with a few jobs need not wait
until some of another's many have ended.

What is kept follows what was committed. A batch that is being decided counts beside it (`spent`, `queued`)
and is forgotten when it is decided again.
"""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.executor.core.pace import Pace

HIGHEST = 2
RISE = timedelta(seconds=150)
"""Low starts within 10 minutes: it is overdue after 7.5, and then has every second turn of its tenant."""
OVERDUE = HIGHEST + 1


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """An execution that waits for room since an instant; `priority` is 0 low, 1 normal, 2 high."""

    key: str
    tenant: str
    priority: int
    since: datetime

    def __lt__(self, other: "Waiter") -> bool:
        """Who was kept back and waits again since the same instant finds its former place in the heap."""
        return False  # which of the two comes first does not matter: the former one is passed over

    def rank(self, now: datetime) -> int:
        """Its class by now. What is high has nowhere to rise to."""
        if self.priority >= HIGHEST:
            return HIGHEST
        return min(OVERDUE, max(0, self.priority) + max(0, (now - self.since) // RISE))


@dataclass(frozen=True, slots=True)
class Load:
    """What an execution has in a lane: attempts that are out, and since when it waits with another."""

    out: int
    waits: Waiter | None = None


class Line:
    """The waiters of one tenant, oldest first in each class that they came with."""

    def __init__(self, waiting: Mapping[str, Waiter]) -> None:
        """`waiting` tells who still waits; others are passed over."""
        self._waiting = waiting
        self._heaps: tuple[list[tuple[datetime, str, Waiter]], ...] = tuple([] for _ in range(HIGHEST + 1))
        self._overdue_next = True

    def put(self, waiter: Waiter) -> None:
        """Take a place by age."""
        place = min(max(waiter.priority, 0), HIGHEST)
        heapq.heappush(self._heaps[place], (waiter.since, waiter.key, waiter))

    def pop(self, now: datetime) -> Waiter | None:
        """Whose turn it is; None: nobody waits."""
        heads = [heap for heap in self._heaps if self._skip_gone(heap)]
        if not heads:
            return None
        overdue = [heap for heap in heads if heap[0][2].rank(now) == OVERDUE]
        others = [heap for heap in heads if heap[0][2].rank(now) < OVERDUE]
        if overdue and (self._overdue_next or not others):
            self._overdue_next = False
            chosen = min(overdue, key=lambda heap: heap[0][0])
        else:
            self._overdue_next = True
            top = max(heap[0][2].rank(now) for heap in others)
            chosen = min(
                (heap for heap in others if heap[0][2].rank(now) == top), key=lambda heap: heap[0][0]
            )
        return heapq.heappop(chosen)[2]

    def _skip_gone(self, heap: list[tuple[datetime, str, Waiter]]) -> bool:
        while heap and self._waiting.get(heap[0][1]) is not heap[0][2]:
            heapq.heappop(heap)
        return bool(heap)


@dataclass(slots=True)
class Desk:
    """One lane of one index: room for some attempts, the last of it for tenants that have little out."""

    pace: Pace
    share: int | None = None
    """How many attempts of one tenant may be out; None: as many as there is room for."""
    out: int = 0
    spent: Counter[str] = field(default_factory=Counter)
    queued: set[str] = field(default_factory=set)
    _out: dict[str, tuple[str, int]] = field(default_factory=dict)
    _out_of: Counter[str] = field(default_factory=Counter)
    _waiting: dict[str, Waiter] = field(default_factory=dict)
    _waiting_of: Counter[str] = field(default_factory=Counter)
    _tenants: OrderedDict[str, Line] = field(default_factory=OrderedDict)
    _chosen: dict[str, Waiter] = field(default_factory=dict)

    @property
    def window(self) -> int:
        """How many attempts may be out, as the lanes are."""
        return self.pace.now

    @property
    def reserve(self) -> int:
        """Room that is kept for tenants that have less than this out: they need not wait for others' ends."""
        return max(1, self.window // 4) if self.window > 1 else 0

    @property
    def free(self) -> int:
        """How many more may be asked for, as the batch stands."""
        return self.window - self.out - self.spent.total()

    def has_room(self, tenant: str) -> bool:
        """Whether a newcomer may be asked for at once: nobody has waited longer for the same room."""
        if self.free <= 0 or self._has_its_share(tenant, self.spent):
            return False
        if self._has_little(tenant, self.spent):
            return not self._waiting_of[tenant] and tenant not in self.queued
        return self.free > self.reserve and not self._waiting and not self.queued

    def chosen(self, key: str) -> bool:
        """Whether it is this one's turn."""
        return key in self._chosen

    def begin(self) -> None:
        """A batch is decided: what the last one counted has been committed, or never was."""
        if self.spent or self.queued:
            self.spent.clear()
            self.queued.clear()

    def forget(self, key: str) -> None:
        """An execution has nothing in this lane."""
        if (known := self._out.get(key)) is not None:
            self._count(key, known[0], 0)
        if (waiter := self._waiting.pop(key, None)) is not None:
            self._waiting_of[waiter.tenant] -= 1

    def keep(self, key: str, tenant: str, load: Load | None) -> None:
        """What was committed of an execution."""
        if load is None:
            self.forget(key)
            return
        self._count(key, tenant, load.out)
        waits, known = load.waits, self._waiting.get(key)
        if waits is None:
            if known is not None:
                del self._waiting[key]
                self._waiting_of[tenant] -= 1
        elif known is None or known.since != waits.since:
            self._waiting_of[tenant] += known is None
            self._waiting[key] = waits
            self._put(waits)

    def heard(self, waited_s: float) -> None:
        """A step of this lane began, after it had waited so long for a worker."""
        self.pace.heard(waited_s, wanted=bool(self._waiting))

    def choose(self, now: datetime) -> Iterable[str]:
        """Whose turn it is, as many as there is room for; with those chosen before who still wait."""
        again, self._chosen = self._chosen, {}
        for former in again.values():
            if self._waiting.get(former.key) is former:
                self._put(former)
        if not self._waiting:
            return ()
        given: Counter[str] = Counter()
        while (waiter := self._next(now, given)) is not None:
            given[waiter.tenant] += 1
            self._chosen[waiter.key] = waiter
        return tuple(self._chosen)

    def _has_little(self, tenant: str, more: Counter[str]) -> bool:
        return self._out_of[tenant] + more[tenant] < max(1, self.reserve)

    def _has_its_share(self, tenant: str, more: Counter[str]) -> bool:
        return self.share is not None and self._out_of[tenant] + more[tenant] >= self.share

    def _count(self, key: str, tenant: str, out: int) -> None:
        before = self._out.pop(key, None)
        change = out - (before[1] if before is not None else 0)
        if out:
            self._out[key] = (tenant, out)
        if change:
            self.out += change
            self._out_of[tenant] += change
            if not self._out_of[tenant]:
                del self._out_of[tenant]
            if not self.out:
                self.pace.rest()

    def _put(self, waiter: Waiter) -> None:
        line = self._tenants.get(waiter.tenant)
        if line is None:
            line = self._tenants[waiter.tenant] = Line(self._waiting)
        line.put(waiter)

    def _next(self, now: datetime, given: Counter[str]) -> Waiter | None:
        """The next of the next tenant for whom there is room; that one goes to the end."""
        room = self.window - self.out - given.total()
        if room <= 0:
            return None
        for tenant, line in list(self._tenants.items()):
            if self._has_its_share(tenant, given):
                continue
            if room <= self.reserve and not self._has_little(tenant, given):
                continue
            waiter = line.pop(now)
            if waiter is not None:
                self._tenants.move_to_end(tenant)
                return waiter
            del self._tenants[tenant]
        return None
