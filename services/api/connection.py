"""One HTTP connection: what of uvicorn's it bounds more tightly, in size, in time and in number.

Headers come whole within HEAD_WITHIN_S and HEAD_BYTES_MAX. A client that reads nothing of what was written
for WRITE_WITHIN_S is cut off, so it keeps nothing. How many connections and requests there may be is the
Door's business.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from services.api import problems
from services.api.door import Door
from services.api.limits import of_address
from services.api.problems import Problem

HEAD_WITHIN_S = 10.0
HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 100
WRITE_WITHIN_S = 30.0
SWEEP_S = 5.0
_TOO_SLOW = b"expected a request's whole headers within %g s" % HEAD_WITHIN_S
_TOO_LARGE = b"expected at most %d bytes of headers" % HEAD_BYTES_MAX
_TOO_MANY = b"this address has too many connections"
_CLOSE = {"Connection": "close"}
Observe = Callable[[ASGIApp], ASGIApp]


class Connection(HttpToolsProtocol):
    """Subclasses name what it works with."""

    door: Door
    observe: Observe
    _peer = _who = ""
    _wants_head = _in_head = False
    _head_bytes = 0
    _patience: asyncio.TimerHandle | None = None
    _unsent: float = 0
    _progress_at = 0.0

    # ------------------------------------------------------------ coming and going

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn counts how long nothing comes after an answer; here before the first request as well."""
        super().connection_made(transport)
        self._served = self.app
        self._peer = self.client[0] if self.client else ""
        self._who = of_address(self._peer)
        self._progress_at = time.monotonic()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        if not self.door.connected(self, self._peer):
            self._give_up(b"429 Too Many Requests\r\nretry-after: 5", _TOO_MANY)
        elif not self.door.is_watched:
            self.door.is_watched = True
            self.loop.call_later(SWEEP_S, _sweep, self.loop, self.door)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything at once. uvicorn's own timer would keep a connection that was reset."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._set_patience(None)
        self.pipeline.clear()
        self.door.gone(self, self._peer)

    def abort(self) -> None:
        """Close it at once, whatever is unsent."""
        self.transport.abort()

    # ------------------------------------------------------------ headers

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self.timeout_keep_alive_task is not None:  # any byte ends uvicorn's patience, and begins ours
            self._wants_head = True
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        self._await_head()

    def on_message_begin(self) -> None:
        """A request begins, perhaps behind another one that is still being answered."""
        self._wants_head = self._in_head = True
        self._head_bytes = 0  # of what comes from now on: one read is bounded by itself
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers, which come behind the body, are none (RFC 9110, section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take the request, or let its refusal be the answer."""
        self._wants_head = self._in_head = False
        self.door.busy(self)
        if self.door.is_trusted(self._peer):
            self._name_client()
        refusal = self._refusal()
        self.app = self._served if refusal is None else cast(Any, self._refusing(refusal))
        self.take()

    def take(self) -> None:
        """Begin to answer the request whose headers were read."""
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """What waits behind an answer comes next; if there is nothing, the connection is idle."""
        super().on_response_complete()
        if not self._is_answering() and not self.pipeline:
            self.door.idle(self)

    def _name_client(self) -> None:
        given = [value for name, value in self.headers if name == b"x-forwarded-for"]
        address = self.door.origin(self._peer, b",".join(given).decode("latin-1"))
        self._who = of_address(address)
        self.client = self.scope["client"] = (address, 0)

    def _refusal(self) -> Problem | None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES_MAX or len(self.headers) > HEADERS_MAX:
            expected = f"expected at most {HEADERS_MAX} headers and {HEAD_BYTES_MAX} bytes of them"
            return Problem("headers-too-large", f"{expected}, found {len(self.headers)} of {size} bytes")
        return self.door.request(self._who)

    def _refusing(self, refusal: Problem) -> ASGIApp:
        refusal.headers |= _CLOSE
        return type(self).observe(problems.render(refusal))

    def _await_head(self) -> None:
        """Headers that came whole with their first byte, as nearly all do, need no timer."""
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._give_up(b"431 Request Header Fields Too Large", _TOO_LARGE)
        elif self._wants_head and self._patience is None:
            self._set_patience(self.loop.call_later(HEAD_WITHIN_S, self._head_is_late))
        elif not self._wants_head:
            self._set_patience(None)

    def _set_patience(self, timer: asyncio.TimerHandle | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = timer

    def _head_is_late(self) -> None:
        self._patience = None
        if self._is_answering():
            self._await_head()  # the answer to the request before it goes first
        else:
            self._give_up(b"408 Request Timeout", _TOO_SLOW)

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _give_up(self, status: bytes, why: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._is_answering():
            head = b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-type: text/plain\r\n" % status
            self.transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(why), why))
        self.transport.close()

    # ------------------------------------------------------------ writing

    def resume_writing(self) -> None:
        """The client has read nearly all that was written."""
        self._unsent = float("inf")
        super().resume_writing()

    def is_stuck(self, now: float) -> bool:
        """Whether the client has read nothing of what is unsent for WRITE_WITHIN_S; asked every SWEEP_S."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._progress_at = now
        self._unsent = unsent
        return now - self._progress_at >= WRITE_WITHIN_S


def _sweep(loop: asyncio.AbstractEventLoop, door: Door) -> None:
    """Cut the connections that are stuck, for as long as there are any connections."""
    now = time.monotonic()
    for connection in [one for one in door.open if isinstance(one, Connection) and one.is_stuck(now)]:
        connection.abort()
    door.is_watched = bool(door.open)
    if door.is_watched:
        loop.call_later(SWEEP_S, _sweep, loop, door)
