"""The guarded client of runtime/http.py in a worker: one event loop in one thread, for all calls.

Nothing of it is there before the first call: a worker that only exports never loads an HTTP library.
"""

import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from services.runtime.addresses import Network
from services.runtime.exchange import Response

if TYPE_CHECKING:
    from services.executor.calls.loop import Loop
    from services.runtime.http import Client, Resolve

T = TypeVar("T")
TIMEOUT_S = 30.0


class Caller:
    """The loop, for any thread, and the client, inside it."""

    def __init__(self, allow: Sequence[Network], user_agent: str, resolve: "Resolve | None" = None) -> None:
        """As those of the client."""
        self._allow = allow
        self._user_agent = user_agent
        self._resolve = resolve
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._client: Client | None = None

    def begin(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run it in the loop; safe from any thread."""
        with self._lock:
            if self._loop is None:
                from services.executor.calls.loop import Loop  # noqa: PLC0415 see the module

                self._loop = Loop()
            return self._loop.begin(work)

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        owner: str,
        timeout_s: float,
        kept_bytes: int,
    ) -> Response:
        """As `Client.send`; for what runs in the loop."""
        if self._client is None:
            from services.runtime.http import Client  # noqa: PLC0415 see the module

            self._client = Client(self._allow, self._user_agent, TIMEOUT_S, self._resolve)
        return await self._client.send(
            method, url, headers, body, owner=owner, timeout_s=timeout_s, kept_bytes=kept_bytes
        )

    def close(self) -> None:
        """Cancel everything in the loop and close every connection; what begins after that starts anew."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close(self._disconnected())

    async def _disconnected(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


@dataclass(frozen=True, slots=True)
class Outbound:
    """What steps call out with: the caller, and the secrets of each tenant by name."""

    caller: Caller
    secrets: Mapping[str, Mapping[str, str]]
