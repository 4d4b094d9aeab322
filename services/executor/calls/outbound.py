"""The guarded client of runtime/http.py for a worker's threads: one event loop in one thread, for all lanes.

Nothing of it is there before the first call: a worker that only exports never loads an HTTP library.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.runtime.addresses import Network
from services.runtime.exchange import Response

if TYPE_CHECKING:
    from services.executor.calls.loop import Loop
    from services.runtime.http import Resolve


class Caller:
    """Begins calls; safe from any thread."""

    def __init__(self, allow: Sequence[Network], user_agent: str, resolve: "Resolve | None" = None) -> None:
        """As those of the client."""
        self._allow = allow
        self._user_agent = user_agent
        self._resolve = resolve
        self._lock = threading.Lock()
        self._loop: Loop | None = None

    def begin(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timeout_s: float,
        kept_bytes: int,
    ) -> "Future[Response]":
        """A call under way. `result()` waits for it, about `timeout_s` at most, and raises what `Client.send`
        does; `cancel()`, from any thread, ends it at once, and `result()` raises CancelledError then."""
        loop = self._started()
        call = loop.client.send(method, url, headers, body, timeout_s=timeout_s, kept_bytes=kept_bytes)
        return loop.begin(call)

    def close(self) -> None:
        """End every call and close every connection; a call after that starts all of it anew."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def _started(self) -> "Loop":
        with self._lock:
            if self._loop is None:
                from services.executor.calls.loop import Loop  # noqa: PLC0415 see the module

                self._loop = Loop(self._allow, self._user_agent, self._resolve)
            return self._loop


@dataclass(frozen=True, slots=True)
class Outbound:
    """What steps call out with: the caller, and the secrets of each tenant by name."""

    caller: Caller
    secrets: Mapping[str, Mapping[str, str]]
