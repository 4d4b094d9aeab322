"""Who waits for an execution hears of it at once, whichever api process projected the event.

The projector's transaction ends with one NOTIFY that names the executions it changed. Each api process has
one LISTEN connection, and only while somebody watches. A watcher looks at the tables after `watch` began and
again after each `wait`: what is committed in between is remembered, so nothing is missed and nothing is
asked for at intervals.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import Gauge

from services.runtime import telemetry, wakeups

CHANNEL = "api_live"
PREFIX = 8
PAYLOAD_IDS_MAX = 999  # PostgreSQL takes payloads of less than 8000 bytes

WATCHES = Gauge("live_watches", "Requests that wait for an execution", registry=telemetry.REGISTRY)


def announce(cursor: Any, execution_ids: Iterable[str]) -> None:
    """Tell every api process, once the caller's transaction commits, that these executions have changed.

    Beginnings of ids are enough: who is woken for nothing looks once more. An empty payload wakes everyone.
    """
    prefixes = sorted({id[:PREFIX] for id in execution_ids})
    payload = "" if len(prefixes) > PAYLOAD_IDS_MAX else "".join(prefixes)
    cursor.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))


class Watch:
    """One waiter for one execution."""

    def __init__(self, live: "Live") -> None:
        self._live = live
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the process drains: nothing is waited for any more."""
        return self._live.closing

    def wake(self) -> None:
        """Let the current `wait`, or else the next one, return."""
        self._changed.set()

    async def wait(self, timeout_s: float) -> bool:
        """True as soon as the execution may have changed since the former `wait`, or since `watch`.

        False when `timeout_s` has passed, and at once when the process drains: answer with what you have.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        if self._live.closing:
            return False
        self._changed.clear()
        return True


class Live:
    """All watches of this process. Everything but `close` belongs to the event loop that serves HTTP."""

    def __init__(self, database_url: str) -> None:
        """Connects when first watched."""
        self._url = database_url
        self._watches: dict[str, set[Watch]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening: asyncio.Task[None] | None = None
        self.closing = False

    @contextmanager
    def watch(self, execution_id: str) -> Iterator[Watch]:
        """Hear of an execution from here on: look at the tables inside the block, then `wait`."""
        prefix = execution_id[:PREFIX]
        watch = Watch(self)
        if self.closing:
            watch.wake()
        self._watches.setdefault(prefix, set()).add(watch)
        self._listen()
        WATCHES.inc()
        try:
            yield watch
        finally:
            WATCHES.dec()
            self._watches[prefix].discard(watch)
            if not self._watches[prefix]:
                del self._watches[prefix]

    def watching(self, execution_id: str) -> int:
        """How many wait for this execution, here."""
        return len(self._watches.get(execution_id[:PREFIX], ()))

    def close(self) -> None:
        """Send every waiter home; safe from any thread, and the first thing to do when the process drains."""
        self.closing = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    def _listen(self) -> None:
        if not self.closing and (self._listening is None or self._listening.done()):
            self._loop = asyncio.get_running_loop()
            self._listening = self._loop.create_task(
                wakeups.listen(self._url, CHANNEL, "millstream-api-live", self._wake)
            )

    def _wake(self, payloads: Sequence[str]) -> None:
        if not all(payloads) or not payloads:
            prefixes = list(self._watches)
        else:
            prefixes = [text[at : at + PREFIX] for text in payloads for at in range(0, len(text), PREFIX)]
        for prefix in prefixes:
            for watch in self._watches.get(prefix, ()):
                watch.wake()

    def _end(self) -> None:
        self._wake(())
        if self._listening is not None:
            self._listening.cancel()
