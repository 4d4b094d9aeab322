"""Server-Sent Events: a first look, then another one whenever the execution has changed, until it has ended.

Every stream is bounded: in number for each caller, in time, and by the drain of the process. A client that
lost its stream comes back to any api process with `Last-Event-ID` and misses nothing.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.api.keys import Caller
from services.api.live import Live
from services.api.pool import DatabaseAway
from services.api.problems import Problem, invalid
from services.runtime.blobs import BlobsUnavailable

PER_CALLER_MAX = 20
HEARTBEAT_S = 15.0
LIFE_S = 900.0  # then the client comes back, and its key is looked at again
STUCK_S = 60.0  # beyond that: a client that reads nothing any more
RETRY_S = 1.0
POLL_S = 1.0
MEDIA_TYPE = "text/event-stream"
_NOT_ACCEPTABLE = re.compile(r"q\s*=\s*0(\.0{0,3})?")
COMMENT = ": waiting\n\n"  # keeps the connection, and shows who is gone


@dataclass(frozen=True, slots=True)
class Look:
    """What is new since the former look, and what to do then: look again, wait for a change, for a change
    or POLL_S (for what is not in the tables), or end."""

    text: str
    then: Literal["again", "wait", "poll", "end"]


Looking = Callable[[bool], Awaitable[Look]]
"""The argument: whether the execution may have changed since the former look."""


def wants_stream(request: Request) -> bool:
    """Whether the caller asks for Server-Sent Events."""
    accepted = ",".join(request.headers.getlist("accept")).lower()
    return any(_takes_stream(part) for part in accepted.split(","))


def _takes_stream(part: str) -> bool:
    """Whether an entry of Accept names the type; the weight 0 means not acceptable (RFC 9110, 12.4.2)."""
    name, *parameters = (piece.strip() for piece in part.split(";"))
    return name == MEDIA_TYPE and not any(_NOT_ACCEPTABLE.fullmatch(one) for one in parameters)


def last_event_id(request: Request, form: re.Pattern[str]) -> re.Match[str] | None:
    """The header that a client sends when it comes back. Raises Problem."""
    text = request.headers.get("last-event-id")
    if text is None:
        return None
    match = form.fullmatch(text)
    if match is None:
        raise invalid("Last-Event-ID", "expected the id of a message of this stream")
    return match


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
        changed = True

        def is_over() -> bool:
            return live.closing or time.monotonic() >= until

        with live.watch(execution_id) as watch:
            while not is_over():
                try:
                    seen = await look(changed)
                except (DatabaseAway, BlobsUnavailable):
                    yield ": a part of ours is away\n\n"
                    await asyncio.sleep(RETRY_S)
                    continue
                if seen.text:
                    yield seen.text
                match seen.then:
                    case "end":
                        return
                    case "again":
                        changed = False
                    case "poll":
                        changed = await watch.wait(POLL_S)
                        if not changed:
                            yield COMMENT
                    case "wait":
                        while not (changed := await watch.wait(self._heartbeat_s)):
                            if is_over():
                                return
                            yield COMMENT


class EventStream(StreamingResponse):
    """A stream that no proxy should hold back."""

    media_type = MEDIA_TYPE

    def __init__(self, chunks: AsyncIterator[str]) -> None:
        super().__init__(chunks, headers={"X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, for a bounded time whatever the client does."""
        try:
            async with asyncio.timeout(LIFE_S + STUCK_S):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            return
