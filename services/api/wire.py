"""Plain submits answered by the connection itself: no task, no scope, no messages.

What uvicorn makes for an ASGI application takes longer than a submit. This looks at requests that came whole
in one read: those that `Quick` understands are queued for the next commit, and their answer is written when
it is done. All others go the ordinary way, and so do those that turn out to need another answer than 202.
"""

import asyncio
import time
from typing import Any, cast

import msgspec
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from services.api import problems, quota, views
from services.api.connection import Connection, Observe
from services.api.door import Door
from services.api.intake import Refused, Stored, Submit
from services.api.middleware import CAREFUL, measure
from services.api.pool import DatabaseAway
from services.api.problems import Problem
from services.api.quick import METHOD, PATH, Headers, Quick, is_this
from services.api.quota import OverQuota

_METHOD, _URL = METHOD.encode(), PATH.encode()
_ANY_ID = "0" * 40


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


class Wire(Connection):
    """One connection. Subclasses name what it works with."""

    quick: Quick
    _held: _Pending | None = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a body of which a part is missing is the application's to wait for."""
        super().data_received(data)
        held, self._held = self._held, None
        if held is not None and not self.transport.is_closing():
            super().take()
            if held.body:
                super().on_body(held.body)

    def take(self) -> None:
        """Hold the request if it may be a plain submit, and the connection has nothing else to do."""
        before: RequestResponseCycle | None = self.cycle
        if (
            self.url == _URL
            and self.app is self._served
            and (before is None or before.response_complete)
            and self.parser.get_method() == _METHOD
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
        ):
            self._held = _Pending(self.headers, b"", self.parser.should_keep_alive())
        else:
            super().take()

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


def protocol(taker: Quick, observed: Observe, counting: Door) -> type[Wire]:
    """The protocol class that uvicorn makes an instance of for each connection."""

    class Served(Wire):
        quick = taker
        door = counting
        observe = staticmethod(observed)

    return Served


def _refusal(error: BaseException) -> ASGIApp:
    """The answer to a submit that was not stored, as far as is known."""
    if isinstance(error, DatabaseAway):
        return problems.render(problems.away(error))
    if isinstance(error, OverQuota):
        return problems.render(quota.problem(error))
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
