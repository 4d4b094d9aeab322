"""`POST /v1/executions` with a plain body, answered without the web framework.

Routing, dependency injection and request objects take several times as long as the submit itself. This stands
before the application and answers what it fully understands: a known key, ordinary headers, a plain body that
is accepted. Everything else it hands on untouched, and every refusal is the application's. What came whole in
one read is answered earlier still, by `wire.py`, from the same `Quick`.
"""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services import jobs
from services.api import accepting, bodies, idempotency, problems, views
from services.api.core import plain, submission
from services.api.core.submission import Submission
from services.api.intake import Stored, Submit
from services.api.keys import Caller, Role
from services.api.parts import Parts
from services.api.pool import DatabaseAway
from services.api.problems import Problem
from services.api.routes.submit import BODY_BYTES_MAX, NAMES, ROUTE
from services.contracts import ids
from services.jobs.refused import Refused
from services.runtime import entropy

METHOD, _, PATH = ROUTE.partition(" ")
_TOO_SLOW = "the body is too slow"
_UNUSUAL = frozenset({b"prefer", b"content-encoding", b"transfer-encoding", b"expect"})
Headers = Sequence[tuple[bytes, bytes]]
_WANTED = frozenset({b"authorization", b"idempotency-key", b"content-type"})


class Quick:
    """What a request asks for, where that can be told at once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def row(self, headers: Headers, raw: bytes) -> Submit | None:
        """The checked request of one that came whole; None when the application must look at it."""
        head = ordinary(headers)
        caller = None if head is None else self.caller(head)
        asked = None if caller is None else plain.read(raw)
        if head is None or caller is None or asked is None:
            return None
        return self.checked(caller, head.get(b"idempotency-key"), *asked)

    def caller(self, head: Mapping[bytes, bytes]) -> Caller | None:
        """Who asks, when the key is known and may submit."""
        caller = self._parts.keyring.known(head.get(b"authorization", b"").decode("latin-1"))
        return caller if caller is not None and caller.role.covers(Role.AUTHOR) else None

    def checked(self, caller: Caller, key: bytes | None, asked: Submission, body_hash: str) -> Submit | None:
        """None when the application must say why not."""
        try:
            record = submission.job_requested(
                asked,
                execution_id=entropy.fresh_id()
                if key is None
                else ids.execution_id(caller.tenant, caller.principal, ROUTE, key.decode()),
                tenant=caller.tenant,
                principal=caller.principal,
                owner=caller.owner,
                definition=None,
                now=self._parts.clock.now(),
                seal=_nothing_to_seal,
                names=NAMES,
            )
            jobs.plan(record)
            row = accepting.row(caller, record, body_hash)
        except (Refused, Problem):
            return None
        return row if self._parts.door.counts(caller) else None

    def begin(self, row: Submit) -> "asyncio.Future[Stored] | None":
        """Queue it for the next commit; None where that cannot be done at once. Stores nothing then."""
        return accepting.begin(self._parts, row)


class QuickSubmit:
    """Plain ASGI before `app`; `route` is the route that the answer is counted under."""

    def __init__(self, app: ASGIApp, parts: Parts, route: object) -> None:
        self._app, self._parts, self._route = app, parts, route
        self._quick = Quick(parts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != METHOD:
            await self._app(scope, receive, send)
            return
        head = ordinary(scope["headers"])
        caller = None if head is None else self._quick.caller(head)
        if head is None or caller is None:
            await self._app(scope, receive, send)
            return
        message = await _first(receive)
        if message is None:
            await problems.render(bodies.too_slow())(scope, receive, send)
            return
        asked = None
        if message["type"] == "http.request" and not message.get("more_body"):
            asked = plain.read(message["body"])
        row = None if asked is None else self._quick.checked(caller, head.get(b"idempotency-key"), *asked)
        if row is None or not await self._accept(row, scope, receive, send):
            await self._app(scope, _again(message, receive), send)

    async def _accept(self, row: Submit, scope: Scope, receive: Receive, send: Send) -> bool:
        """False when the id is another's: nothing was stored, and nothing sent."""
        try:
            stored = await accepting.store(self._parts, row)
        except (Problem, DatabaseAway) as error:
            problem = error if isinstance(error, Problem) else problems.away(error)
            await problems.render(problem)(scope, receive, send)
            return True
        if not is_this(stored, row):
            return False
        scope["route"] = self._route
        view = views.accepted(row.execution_id)
        body = msgspec.json.encode(view)
        headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
            (b"location", view["links"]["self"].encode()),
        ]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return True


def is_this(stored: Stored, row: Submit) -> bool:
    """Whether the id holds this very request, stored now or before."""
    return stored.tenant == row.tenant and stored.body_hash == row.body_hash


def ordinary(headers: Headers) -> Mapping[bytes, bytes] | None:
    """The headers that matter; None where one of them asks for more than this path does."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _WANTED:
            if name in found:
                return None
            found[name] = value
        elif name in _UNUSUAL or (name == b"content-length" and int(value) > BODY_BYTES_MAX):
            return None
    if found.get(b"content-type", b"application/json") != b"application/json":
        return None
    key = found.get(b"idempotency-key")
    return found if key is None or idempotency.KEY.fullmatch(key.decode("latin-1")) else None


async def _first(receive: Receive) -> Message | None:
    """The first message; None when it does not come. A third of what asyncio.timeout costs."""
    task = asyncio.current_task()
    assert task is not None
    timer = asyncio.get_running_loop().call_later(bodies.WITHIN_S, task.cancel, _TOO_SLOW)
    try:
        return await receive()
    except asyncio.CancelledError as cancelled:
        if cancelled.args != (_TOO_SLOW,):
            raise
        task.uncancel()
        return None
    finally:
        timer.cancel()


def _again(first: Message, receive: Receive) -> Receive:
    """The same messages once more, from the first one on."""
    kept = [first]

    async def again() -> Message:
        return kept.pop() if kept else await receive()

    return again


def _nothing_to_seal(_plain: str, _field: str) -> str:
    raise AssertionError("a plain body holds no secret")
