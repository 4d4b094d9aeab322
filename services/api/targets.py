"""What no parameter of any route may hold, checked before there is a route: control characters, text that is
not UTF-8, and more than VALUE_CHARS_MAX characters, in the path as well as in the query.

Links to files are told from others by nothing: theirs are not found.
"""

import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from services.api.problems import Problem, answer, invalid, not_found
from services.jobs.fields import shown

VALUE_CHARS_MAX = 1_000
PAIRS_MAX = 100
_EXPECTED = f"expected UTF-8 text of at most {VALUE_CHARS_MAX} characters, none of them a control character"


class Targets:
    """Plain ASGI before the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        problem = _problem(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await answer(Request(scope), problem)(scope, receive, send)


def _problem(scope: Scope) -> Problem | None:
    path, query = scope["raw_path"], scope["query_string"]
    # Nearly all have nothing to be decoded: an unescaped control character is no HTTP.
    if (b"%" in path or len(path) > VALUE_CHARS_MAX) and _fault(path) is not None:
        return not_found() if path.startswith(b"/files/") else _of_path(scope)
    if not query or (b"%" not in query and len(query) <= VALUE_CHARS_MAX and query.count(b"&") < PAIRS_MAX):
        return None
    if query.count(b"&") >= PAIRS_MAX:
        return invalid("query", f"expected at most {PAIRS_MAX} parameters, found {query.count(b'&') + 1}")
    for pair in query.split(b"&"):
        name, _, value = pair.replace(b"+", b" ").partition(b"=")
        if (fault := _fault(name)) is not None:
            return invalid("query", f"a parameter's name: {fault}")
        if (fault := _fault(value)) is not None:
            return invalid(unquote_to_bytes(name).decode(), fault)
    return None


def _of_path(scope: Scope) -> Problem:
    """The problem of the parameter that is at fault, or else of the whole path."""
    for name, value in _parameters(scope):
        # what was not UTF-8 was replaced when the path was decoded
        if (fault := _fault(value.encode())) is not None or "\ufffd" in value:
            return invalid(name, fault or f"{_EXPECTED}, found {shown(value)}")
    return invalid("path", _EXPECTED)


def _parameters(scope: Scope) -> Iterator[tuple[str, str]]:
    for route in scope["app"].routes:
        match, found = route.matches(scope)
        if match is not Match.NONE:
            yield from ((name, str(value)) for name, value in found.get("path_params", {}).items())
            return


def _fault(raw: bytes) -> str | None:
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return f"{_EXPECTED}, found bytes that are not UTF-8"
    if len(text) <= VALUE_CHARS_MAX and not any(unicodedata.category(char) == "Cc" for char in text):
        return None
    return f"{_EXPECTED}, found {shown(text)}"
