"""What api's health port says: whether requests are taken, and what is away although they are."""

import asyncio
import time

from services.api.core.projection import Projection
from services.api.pool import DatabaseAway, Pool
from services.runtime.processor.loop import Processor

READY_WITHIN_S = 2.0
FRESH_S = 15.0


class Health:
    """Asked by the threads of the health port; `loop` is the event loop that serves requests."""

    def __init__(self, pool: Pool, projector: Processor[Projection]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._pool, self._projector = pool, projector
        self._turned_at = time.monotonic()

    def live(self) -> tuple[bool, str]:
        """The event loop turns, and so does the projector's loop, if only to wait."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._note_turn)  # for the next who asks
        age_s = time.monotonic() - self._turned_at
        if age_s >= FRESH_S:
            return False, f"the event loop last turned {age_s:.1f} s ago"
        return self._projector.live()

    def ready(self) -> tuple[bool, str]:
        """The database answers a question that goes through the event loop."""
        if self.loop is None:
            return False, "not serving yet"
        asked = asyncio.run_coroutine_threadsafe(self._ask(), self.loop)
        try:
            asked.result(READY_WITHIN_S)
        except (DatabaseAway, TimeoutError):
            asked.cancel()
            is_live, detail = self.live()
            return False, "the database is away" if is_live else detail
        return True, "requests are taken"

    def degraded(self) -> tuple[str, ...]:
        """Requests are taken while the read tables do not follow: Kafka may be away."""
        return self._projector.degraded("projector")

    async def _ask(self) -> None:
        await self._pool.read(lambda cursor: cursor.execute("SELECT 1"))

    def _note_turn(self) -> None:
        self._turned_at = time.monotonic()
