"""Look-ups of host names, each in a thread of its own, shared among those on whose behalf they are made.

The system's look-up cannot be interrupted: it holds its thread until the name server answers or the resolver
gives up, long after the attempt that wanted the name has ended. So a thread counts for its owner until the
look-up itself returns, and an owner gets another one only while it holds less than SHARE of those that are
free: 29 of 256 for the first, fewer for each that comes after it, so that more than thirty would have to
hold theirs before none is left.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

THREADS = 256
SHARE = 1 / 8

Ask = Callable[[str, int], Sequence[str]]
"""Host and port to address literals, blocking; OSError when the name has none."""


def _of_system(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Lookups:
    """Belongs to one event loop."""

    def __init__(self, ask: Ask = _of_system, threads: int = THREADS) -> None:
        """No thread is started before it is needed."""
        self._ask = ask
        self._free = threads
        self._held: Counter[str] = Counter()
        self._waiting: list[asyncio.Future[None]] = []
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lookup")

    async def find(self, owner: str, host: str, port: int) -> Sequence[str]:
        """Look the name up as soon as `owner` may have a thread. Raises OSError when it has no address."""
        loop = asyncio.get_running_loop()
        while self._held[owner] >= self._free * SHARE:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        self._free -= 1
        self._held[owner] += 1

        def ask() -> Sequence[str]:
            try:
                return self._ask(host, port)
            finally:
                with suppress(RuntimeError):  # the loop was closed meanwhile, and nobody counts any more
                    loop.call_soon_threadsafe(self._give_back, owner)

        # Shielded: whoever stops waiting must not make it look as if the thread were free.
        return await asyncio.shield(loop.run_in_executor(self._threads, ask))

    def close(self) -> None:
        """Begin no other look-up; those under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _give_back(self, owner: str) -> None:
        self._free += 1
        self._held[owner] -= 1
        self._held += Counter()  # forgets those that hold none
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
