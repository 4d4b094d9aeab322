"""Server-Sent Events: a first look, then another one whenever the execution has changed, until it has ended.

Every stream is bounded: in time, by the life of its key, and by the drain of the process. A client that
lost its stream comes back to any api process with `Last-Event-ID` and misses nothing.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.api.live import Live, Watch
from services.api.pool import DatabaseAway
from services.api.problems import Problem, invalid
from services.api.sending import send_slices
from services.runtime.blobs import BlobsUnavailable

HEARTBEAT_S = 15.0
KEY_S = 2.0  # a stream ends within this time (and that of the cache of keys) after its key
LIFE_S = 900.0  # then the client comes back
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
IsGood = Callable[[], Awaitable[bool]]
"""Whether who asked for the stream may still see it."""


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
        raise foreign_event_id("it has another form")
    return match


def foreign_event_id(why: str) -> Problem:
    """The answer to an id that no message of the stream has had."""
    return invalid("Last-Event-ID", f"expected the id of a message of this stream: {why}")


def message(data: str, id: str | None = None, event: str | None = None) -> str:
    """One message. Each line of `data` becomes a line of its own, as the format demands."""
    lines = [f"data: {line}" for line in data.split("\n")]
    head = [f"{name}: {value}" for name, value in (("id", id), ("event", event)) if value is not None]
    return "\n".join([*head, *lines, "", ""])


class Streams:
    """How streams of this process go on."""

    def __init__(self, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._heartbeat_s = heartbeat_s

    def follow(self, live: Live, execution_id: str, look: Looking, is_good: IsGood) -> "EventStream":
        """The answer that goes on for as long as `is_good`."""
        return EventStream(self._changes(live, execution_id, look, is_good))

    async def _changes(
        self, live: Live, execution_id: str, look: Looking, is_good: IsGood
    ) -> AsyncGenerator[str, None]:
        until = time.monotonic() + LIFE_S
        changed = True

        def is_over() -> bool:
            return live.closing or time.monotonic() >= until

        yield "retry: 1000\n\n"
        with live.watch(execution_id) as watch:
            while not is_over() and await _still(is_good):
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
                        while not (changed := await self._quiet(watch, is_good)):
                            if is_over() or not await _still(is_good):
                                return
                            yield COMMENT

    async def _quiet(self, watch: Watch, is_good: IsGood) -> bool:
        """Wait for a change (True), or for the time of a heartbeat, while the key is good."""
        heartbeat = time.monotonic() + self._heartbeat_s
        while (left := heartbeat - time.monotonic()) > 0:
            if await watch.wait(min(left, KEY_S)):
                return True
            if watch.is_over or not await _still(is_good):
                break
        return False


async def _still(is_good: IsGood) -> bool:
    try:
        return await is_good()
    except DatabaseAway:  # nobody can tell, and there is nothing to be seen either
        return True


class EventStream(StreamingResponse):
    """A stream that no proxy should hold back."""

    media_type = MEDIA_TYPE

    def __init__(self, chunks: AsyncGenerator[str, None]) -> None:
        super().__init__((), headers={"X-Accel-Buffering": "no"})
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, for a bounded time whatever the client does."""
        try:
            async with asyncio.timeout(LIFE_S + STUCK_S):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            return

    async def stream_response(self, send: Send) -> None:
        """In slices; the watch ends when the client has gone, not when its garbage is collected."""
        async with contextlib.aclosing(self._chunks) as chunks:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            async for chunk in chunks:
                await send_slices(send, chunk.encode())
        await send({"type": "http.response.body", "body": b"", "more_body": False})
