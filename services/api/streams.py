"""Server-sent events: a first look, then another one whenever the execution has changed, until it has ended.

Every stream is bounded: in number for each caller, in time, and by the drain of the process. A client that
lost its stream comes back to any api process with `Last-Event-ID` and misses nothing.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.api.keys import Caller
from services.api.live import Live
from services.api.pool import DatabaseAway
from services.api.problems import Problem
from services.runtime.blobs import BlobsUnavailable

PER_CALLER_MAX = 20
HEARTBEAT_S = 15.0
LIFE_S = 900.0  # then the client comes back, and its key is looked at again
STUCK_S = 60.0  # beyond that: a client that reads nothing any more
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """What is new since the former look, and what to do then: look again, wait for a change, or end."""

    text: str
    then: Literal["again", "wait", "end"]


Looking = Callable[[], Awaitable[Look]]


def message(data: str, id: str | None = None, event: str | None = None) -> str:
    """One message. Each line of `data` becomes a line of its own, as the format demands."""
    lines = [f"data: {line}" for line in data.split("\n")]
    head = [f"{name}: {value}" for name, value in (("id", id), ("event", event)) if value is not None]
    return "\n".join([*head, *lines, "", ""])


class Streams:
    """The streams of this process."""

    def __init__(self, heartbeat_s: float = HEARTBEAT_S, per_caller_max: int = PER_CALLER_MAX) -> None:
        self._heartbeat_s = heartbeat_s
        self._per_caller_max = per_caller_max
        self._open: Counter[Caller] = Counter()

    def follow(self, caller: Caller, live: Live, execution_id: str, look: Looking) -> "EventStream":
        """The answer that goes on. Raises Problem (429) when the caller has too many."""
        if self._open[caller] >= self._per_caller_max:
            raise Problem(
                "too-many-streams",
                f"expected at most {self._per_caller_max} streams at once; close one and try again",
                headers={"Retry-After": "5"},
            )
        return EventStream(self._chunks(caller, live, execution_id, look))

    async def _chunks(
        self, caller: Caller, live: Live, execution_id: str, look: Looking
    ) -> AsyncIterator[str]:
        self._open[caller] += 1
        try:
            yield "retry: 1000\n\n"
            async for chunk in self._changes(live, execution_id, look):
                yield chunk
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    async def _changes(self, live: Live, execution_id: str, look: Looking) -> AsyncIterator[str]:
        until = time.monotonic() + LIFE_S
        with live.watch(execution_id) as watch:
            while time.monotonic() < until:
                try:
                    seen = await look()
                except (DatabaseAway, BlobsUnavailable):
                    await asyncio.sleep(RETRY_S)
                    seen = Look(": a part of ours is away\n\n", "again")
                if seen.text:
                    yield seen.text
                if seen.then == "end":
                    return
                while seen.then == "wait" and not await watch.wait(self._heartbeat_s):
                    if live.closing or time.monotonic() >= until:
                        return
                    yield ": waiting\n\n"
                if live.closing:
                    return


class EventStream(StreamingResponse):
    """`text/event-stream` that no proxy should hold back."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[str]) -> None:
        super().__init__(chunks, headers={"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, for a bounded time whatever the client does."""
        try:
            async with asyncio.timeout(LIFE_S + STUCK_S):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            return
