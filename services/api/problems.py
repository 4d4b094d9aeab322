"""Errors as RFC 9457 `application/problem+json`, on S1's paths in its envelope; only here are they written.

`type` is `urn:millstream:problem:<word>`; `errors` lists every fault with the path of the field as the
caller wrote it. A problem never repeats a header value, a secret or a body.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from services.api.core import exhaust
from services.contracts.errors import FieldError
from services.jobs.fields import shown
from services.jobs.refused import Refused
from services.runtime import entropy, telemetry

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:millstream:problem:"

log = telemetry.get_logger()

KINDS: Mapping[str, tuple[int, str]] = {
    "malformed-body": (400, "The body cannot be read"),
    "invalid-request": (400, "The request is not acceptable"),
    "unauthorized": (401, "A valid API key is needed"),
    "forbidden": (403, "The key's role does not allow this"),
    "not-found": (404, "Not found"),
    "method-not-allowed": (405, "Method not allowed"),
    "body-timeout": (408, "The body did not arrive in time"),
    "idempotency-conflict": (409, "The idempotency key was used for another request"),
    "duplicate-request": (409, "This request was made before"),
    "command-refused": (409, "The command changed nothing"),
    "precondition-failed": (412, "The definition is not at the expected revision"),
    "command-unacceptable": (422, "The command lacks something, or has something wrong in it"),
    "body-too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body has an unsupported form"),
    "too-many-requests": (429, "Too many requests at once, or in a second"),
    "too-many-streams": (429, "Too many streams are open"),
    "headers-too-large": (431, "The request's headers are too large"),
    "quota-exceeded": (429, "The tenant has too many executions running and queued"),
    "internal-error": (500, "Internal error"),
    "unavailable": (503, "Try again shortly"),
}


class Problem(Exception):
    """An answer other than success; the message is the detail."""

    def __init__(
        self,
        kind: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`kind` is a key of KINDS."""
        super().__init__(detail)
        self.kind = kind
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind][0]


def invalid(pointer: str, message: str) -> Problem:
    """A request with one fault."""
    return refused((FieldError(pointer, message),))


def refused(errors: Sequence[FieldError]) -> Problem:
    """A request with faults."""
    return Problem("invalid-request", "; ".join(map(str, errors[:3])), errors)


def unavailable(detail: str) -> Problem:
    """Something of ours is away; nothing was accepted as far as we know, and repeating is safe with a key."""
    return Problem("unavailable", detail, headers={"Retry-After": "1"})


def away(error: Exception) -> Problem:
    """The database is."""
    return unavailable(f"{error}; nothing that was accepted is lost")


def not_found() -> Problem:
    """The one answer for what does not exist and for what belongs to another tenant."""
    return Problem("not-found", "there is nothing at this address for this key")


def render(problem: Problem) -> Response:
    """The response of a problem."""
    status, title = KINDS[problem.kind]
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + problem.kind,
        "title": title,
        "status": status,
        "detail": str(problem),
    }
    if problem.errors:
        body["errors"] = [{"pointer": e.pointer, "message": e.message} for e in problem.errors]
    return Response(msgspec.json.encode(body), status, problem.headers, MEDIA_TYPE)


def envelope_name(request: Request) -> str | None:
    """Which of S1's envelopes answers here: submit, info, list or search; None outside of its paths."""
    path = request.url.path.removeprefix("/data/v3")
    if not path.startswith("/job/request"):
        return None
    word = path.removeprefix("/job/request/").partition("/")[0]
    return word if word in ("submit", "list", "search") else "info"


def answer(request: Request, problem: Problem) -> Response:
    """The response in the form of the path: a problem, or S1's envelope."""
    name = envelope_name(request)
    if name is None:
        return render(problem)
    resmsgid = getattr(request.state, "msgid", None) or entropy.fresh_uuid()
    now = request.app.state.parts.clock.now()
    body = exhaust.failure(name, resmsgid, now, problem.status, problem.kind, str(problem), problem.errors)
    return Response(msgspec.json.encode(body), problem.status, problem.headers, "application/json")


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return answer(request, error)


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answer(request, refused(error.errors))


async def _on_validation(request: Request, error: Exception) -> Response:
    """FastAPI's own checks: query and path parameters."""
    assert isinstance(error, RequestValidationError)
    faults = [
        FieldError(_pointer(fault["loc"]), f"{fault['msg']}; found {shown(fault['input'])}")
        for fault in error.errors()
    ]
    return answer(request, refused(faults))


def _pointer(place: Sequence[str | int]) -> str:
    """("query", "status", 1) is `status[1]`."""
    name, *inner = [str(part) if isinstance(part, str) else f"[{part}]" for part in place[1:]]
    return "".join([name, *inner])


async def _on_http(request: Request, error: Exception) -> Response:
    """Starlette's own answers: unknown path, wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405 and not request.url.path.startswith("/files/"):
        # Starlette names the methods of the first route only.
        routes = [route for route in request.app.routes if isinstance(route, Route)]
        found = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
        allowed = ", ".join(sorted({method for route in found for method in route.methods or ()}))
        problem = Problem("method-not-allowed", f"expected {allowed}", headers={"Allow": allowed})
        return answer(request, problem)
    return answer(request, not_found())


async def _on_crash(request: Request, error: Exception) -> Response:
    log.error("request_crashed", method=request.method, error=type(error).__name__)
    return answer(request, Problem("internal-error", "this is our fault; the log has the details"))


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_crash)
