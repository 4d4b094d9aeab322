"""One event loop in a thread of its own, with a few threads for what would block it."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
CLOSE_S = 2.0
THREADS = 4
"""Bodies are read and stored in these; more would only take the interpreter from each other."""


class Loop:
    """Runs from the beginning until `close`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="call"))
        # A daemon: a receiver that hangs must not keep a stopped process alive.
        self._thread = threading.Thread(target=self._loop.run_forever, name="calls", daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run it; safe from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel what runs, run the last and end the thread; what takes longer is left to the end of the
        process."""
        with suppress(TimeoutError):
            self.begin(_ended(last)).result(CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()


async def _ended(last: Coroutine[Any, Any, None]) -> None:
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await last
