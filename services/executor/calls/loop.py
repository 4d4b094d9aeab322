"""One event loop in a thread of its own, with one connection pool."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from services.runtime.addresses import Network
from services.runtime.http import Client, Resolve

T = TypeVar("T")
CLOSE_S = 2.0
TIMEOUT_S = 30.0


class Loop:
    """Runs from the beginning until `close`."""

    def __init__(self, allow: Sequence[Network], user_agent: str, resolve: Resolve | None) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: a receiver that hangs must not keep a stopped process alive.
        self._thread = threading.Thread(target=self._loop.run_forever, name="calls", daemon=True)
        self._thread.start()

        async def client() -> Client:
            return Client(allow, user_agent, TIMEOUT_S, resolve)

        self.client = self.begin(client()).result()

    def begin(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run it; safe from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Cancel what runs, close the connections and end the thread; what takes longer is left to the end of
        the process."""
        with suppress(TimeoutError):
            self.begin(self._ended()).result(CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _ended(self) -> None:
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self.client.close()
