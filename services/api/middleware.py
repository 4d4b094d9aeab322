"""What every request gets: headers that keep browsers and caches careful, and a place in the metrics."""

import time
from functools import cache

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api import limits
from services.runtime import telemetry

REQUESTS = Histogram(
    "http_request_duration_seconds",
    "Time from the request's headers to the end of the answer",
    ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
    registry=telemetry.REGISTRY,
)
CAREFUL = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})


class Observed:
    """Plain ASGI: it neither reads nor holds a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500

        async def careful(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in CAREFUL if h[0] not in sent)]
            await send(message)

        try:
            await self._app(scope, receive, careful)
        finally:
            limits.release(scope)
            # Never the path: ids make bad labels.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            measure(method, route, status).observe(time.monotonic() - started)


@cache
def measure(method: str, route: str, status: int) -> Histogram:
    """Where an answer is counted."""
    return REQUESTS.labels(method, route, status)
