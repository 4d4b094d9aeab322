"""Plain submits answered by the connection itself: no task, no scope, no messages.

What uvicorn makes for an ASGI application takes longer than a submit. This looks at requests that came whole
in one read: those that `Quick` understands are queued for the next commit, and their answer is written when
it is done. All others go the ordinary way, and so do those that turn out to need another answer than 202.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from services.api import problems, views
from services.api.intake import Refused, Stored, Submit
from services.api.middleware import CAREFUL, measure
from services.api.pool import DatabaseAway
from services.api.problems import Problem
from services.api.quick import METHOD, PATH, Headers, Quick, is_this

_METHOD, _URL = METHOD.encode(), PATH.encode()
_ANY_ID = "0" * 40
HEAD_WITHIN_S = 10.0
HEAD_BYTES_MAX = 64 * 1024
_TOO_SLOW = b"expected a request's whole headers within %g s" % HEAD_WITHIN_S
_TOO_LARGE = b"expected at most %d bytes of headers" % HEAD_BYTES_MAX
Observe = Callable[[ASGIApp], ASGIApp]


class _Pending:
    """A request whose commit is awaited; uvicorn sees it as the connection's cycle."""

    def __init__(self, headers: Headers, body: bytes, keep_alive: bool) -> None:
        self.headers, self.body, self.keep_alive = headers, body, keep_alive
        self.started = time.monotonic()
        self.disconnected = self.response_complete = False

    @property
    def message_event(self) -> "_Pending":
        """What uvicorn sets when the connection is lost."""
        return self

    def set(self) -> None:
        """Nobody waits: the answer to a lost connection is thrown away."""


class Wire(HttpToolsProtocol):
    """One connection. Subclasses name what it works with."""

    quick: Quick
    observe: Observe
    _held: _Pending | None = None
    _wants_head = _in_head = False
    _head_bytes = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn counts how long nothing comes after an answer; here before the first request as well."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a body of which a part is missing is the application's to wait for."""
        if self.timeout_keep_alive_task is not None:  # any byte ends uvicorn's patience, and begins ours
            self._wants_head = True
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        held, self._held = self._held, None
        if held is not None and not self.transport.is_closing():
            super().on_headers_complete()
            if held.body:
                super().on_body(held.body)
        self._await_head()

    def _await_head(self) -> None:
        """Headers that came whole with their first byte, as nearly all do, need no timer."""
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._give_up(b"431 Request Header Fields Too Large", _TOO_LARGE)
        elif self._wants_head and self._patience is None:
            self._patience = self.loop.call_later(HEAD_WITHIN_S, self._head_is_late)
        elif not self._wants_head and self._patience is not None:
            self._patience.cancel()
            self._patience = None

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

    def on_message_begin(self) -> None:
        """A request begins, perhaps behind another one that is still being answered."""
        self._wants_head = self._in_head = True
        self._head_bytes = 0  # of what comes from now on: one read is bounded by itself
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hold the request if it may be a plain submit, and the connection has nothing else to do."""
        self._wants_head = self._in_head = False
        before: RequestResponseCycle | None = self.cycle
        if (
            self.url == _URL
            and (before is None or before.response_complete)
            and self.parser.get_method() == _METHOD
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
            and (self.limit_concurrency is None or len(self.connections) < self.limit_concurrency)
        ):
            self._held = _Pending(self.headers, b"", self.parser.should_keep_alive())
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep it with the request that is held."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.body += body

    def on_message_complete(self) -> None:
        """Queue what is held for the next commit, or let the application look at it."""
        held, self._held = self._held, None
        if held is None:
            super().on_message_complete()
            return
        row = self.quick.row(held.headers, held.body)
        future = None if row is None else self.quick.begin(row)
        # uvicorn lets later requests of this connection wait until its cycle is complete.
        self.cycle = cast(RequestResponseCycle, held)
        if row is None or future is None:
            self._hand_on(held, self.app)
        else:
            future.add_done_callback(lambda done: self._committed(held, row, done))

    def _committed(self, held: _Pending, row: Submit, done: "asyncio.Future[Stored]") -> None:
        error = done.exception()
        if error is not None:
            self._hand_on(held, type(self).observe(_refusal(error)))
        elif not is_this(done.result(), row):
            self._hand_on(held, self.app)
        else:
            measure(METHOD, PATH, 202).observe(time.monotonic() - held.started)
            if not held.disconnected:
                self._answer(held, row.execution_id)

    def _answer(self, held: _Pending, execution_id: str) -> None:
        date = [b"%b: %b\r\n" % pair for pair in self.server_state.default_headers]
        close = b"" if held.keep_alive else b"connection: close\r\n"
        rest = _ACCEPTED.replace(_ANY_ID.encode(), execution_id.encode())
        self.transport.write(b"".join((b"HTTP/1.1 202 Accepted\r\n", *date, close, rest)))
        held.response_complete = True
        if not held.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _hand_on(self, held: _Pending, app: ASGIApp) -> None:
        """The same request to `app`, as uvicorn would have handed it over."""
        cycle = RequestResponseCycle(
            scope=self._scope(held.headers),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=held.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += held.body
        cycle.more_body = False
        cycle.disconnected = held.disconnected
        cycle.message_event.set()
        if cast(object, self.cycle) is held:
            self.cycle = cycle
        self._start_asgi_task(cycle, cast(Any, app))

    def _scope(self, headers: Headers) -> Any:
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": headers,
            "state": self.app_state.copy(),
            "method": METHOD,
            "path": PATH,
            "raw_path": _URL,
            "query_string": b"",
        }


def protocol(taker: Quick, observed: Observe) -> type[Wire]:
    """The protocol class that uvicorn makes an instance of for each connection."""

    class Connection(Wire):
        quick = taker
        observe = staticmethod(observed)

    return Connection


def _refusal(error: BaseException) -> ASGIApp:
    """The answer to a submit that was not stored, as far as is known."""
    if isinstance(error, DatabaseAway):
        return problems.render(problems.away(error))
    if isinstance(error, Refused):
        return problems.render(Problem("invalid-request", str(error)))
    raise error


def _accepted() -> bytes:
    view = views.accepted(_ANY_ID)
    body = msgspec.json.encode(view)
    headers = (
        (b"content-length", b"%d" % len(body)),
        (b"content-type", b"application/json"),
        (b"location", view["links"]["self"].encode()),
        *CAREFUL,
    )
    return b"".join([b"%b: %b\r\n" % pair for pair in headers]) + b"\r\n" + body


_ACCEPTED = _accepted()
