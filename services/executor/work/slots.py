"""Who may call now: so many at once of a worker, of each destination and of each tenant.

Who waits takes no slot of anybody else: a slot is given to the first waiter for whom all three have room, the
tenants in turns, each tenant's destinations in turns, and of one destination the oldest.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

Waiters = deque[asyncio.Future[None]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Calls at once."""

    worker: int = 200
    destination: int = 16
    tenant: int = 32


class Slots:
    """For one event loop."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._busy = 0
        self._of_tenant: Counter[str] = Counter()
        self._of_destination: Counter[str] = Counter()
        self._waiting: OrderedDict[str, OrderedDict[str, Waiters]] = OrderedDict()

    def free(self, tenant: str, destination: str) -> bool:
        """Whether this call could begin now; nobody who waits is then passed over."""
        return (
            self._busy < self._bounds.worker
            and self._of_tenant[tenant] < self._bounds.tenant
            and self._of_destination[destination] < self._bounds.destination
        )

    @asynccontextmanager
    async def held(self, tenant: str, destination: str) -> AsyncIterator[None]:
        """Inside, the slot is ours; waits for it."""
        if self.free(tenant, destination):
            self._count(tenant, destination, 1)
        else:
            await self._wait(tenant, destination)
        try:
            yield
        finally:
            self._give_back(tenant, destination)

    async def _wait(self, tenant: str, destination: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(tenant, OrderedDict()).setdefault(destination, deque())
        waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given in this very moment
                self._give_back(tenant, destination)
            raise

    def _give_back(self, tenant: str, destination: str) -> None:
        self._count(tenant, destination, -1)
        while (turn := self._next()) is not None:
            turn.set_result(None)

    def _count(self, tenant: str, destination: str, change: int) -> None:
        self._busy += change
        for counter, key in ((self._of_tenant, tenant), (self._of_destination, destination)):
            counter[key] += change
            if not counter[key]:
                del counter[key]

    def _next(self) -> asyncio.Future[None] | None:
        """The waiter whose turn it is, with its slot; those who gave up are passed over."""
        for tenant, destinations in [*self._waiting.items()]:
            for destination, waiters in [*destinations.items()]:
                while waiters and waiters[0].done():
                    waiters.popleft()
                if waiters and not self.free(tenant, destination):
                    continue
                turn = waiters.popleft() if waiters else None
                if waiters:
                    destinations.move_to_end(destination)
                else:
                    del destinations[destination]
                if turn is not None:
                    self._count(tenant, destination, 1)
                    self._waiting.move_to_end(tenant)
                    return turn
            if not destinations:
                del self._waiting[tenant]
        return None
