"""The one client by which Millstream calls URLs that users gave it.

A name is resolved once; if any answer is an address that we may not reach, nothing is sent. The connection
goes to a checked literal, with the name kept for `Host` and TLS, and every socket is checked once more when
it is made. No redirects, no proxies from the environment, no cookies, no decompression; a total timeout, and
a bounded piece of the answer. Failures are told in our own words, because a library's text may name the
resolved address.
"""

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from services.contracts import urls
from services.runtime.addresses import Network, is_allowed
from services.runtime.exchange import Cut, Malformed, Refused, Response, SendError, TimedOut
from services.runtime.lookups import Lookups

KEPT_BYTES = 4096
READ_BYTES = 65_536
CONNECT_TIMEOUT_S = 5.0
# Below the idle timeout of common servers (2 to 5 s), so that a request rarely meets one being closed.
KEEPALIVE_S = 1.0
# On whose behalf a name is looked up: aiohttp hands host and port to the resolver, and nothing else.
_OWNER = ContextVar("owner", default="")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to address literals; OSError when the name has none."""


class Client:
    """One connection pool; use it inside one event loop, and close it there."""

    def __init__(
        self, allow: Sequence[Network], user_agent: str, timeout_s: float, resolve: Resolve | None = None
    ) -> None:
        """`allow`: networks that may be called although blocked. `resolve` replaces the system's look-up."""
        self._allow = tuple(allow)
        self._timeout_s = timeout_s
        self._lookups = Lookups()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_CheckedResolver(resolve or self._look_up, self._allow),
                use_dns_cache=False,
                ssl=ssl.create_default_context(),
                limit=0,  # whoever sends bounds what is in flight
                keepalive_timeout=KEEPALIVE_S,
                socket_factory=self.open_socket,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=["Content-Type"],  # an empty body has none, and others come with their own
            headers={"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
            read_bufsize=KEPT_BYTES,
        )

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        owner: str = "",
        timeout_s: float | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> Response:
        """One request, done or failed within `timeout_s` (the client's own, if not given). Raises Refused,
        TimedOut or another SendError. `owner`, a tenant, is whose share of the look-ups is taken.

        A PUT may reach the receiver twice, when a kept connection turns out to be closed.
        An answer whose body is longer than `kept_bytes`, never ends, or comes too slowly, is still an answer:
        `cut` says so then. The bytes are counted as they come, before anybody decompresses them.
        """
        target = self._checked(url)
        _OWNER.set(owner)
        within_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = asyncio.get_running_loop().time() + within_s
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._session.request(
                    method,
                    target,
                    headers=headers,
                    data=body or None,
                    allow_redirects=False,
                    read_bufsize=min(kept_bytes, READ_BYTES),
                )
        except aiohttp.ServerTimeoutError:
            raise TimedOut(f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        except TimeoutError:
            raise TimedOut(f"no answer within {within_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _explained(error) from None
        return await _kept(response, deadline, kept_bytes)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        self._lookups.close()

    def open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The last gate: no socket of this client is made for an address that is not allowed."""
        family, type_, proto, _, address = info
        if not is_allowed(str(address[0]), self._allow):
            raise PermissionError(errno.EACCES, "not allowed")
        return socket.socket(family, type_, proto)

    def _checked(self, url: str) -> URL:
        try:
            parsed = urls.parse(url)
        except ValueError as error:
            raise Malformed(f"url: {error}") from None
        if ":" in parsed.host or re.fullmatch(r"[0-9]+(\.[0-9]+){3}", parsed.host):
            if not is_allowed(parsed.host, self._allow):
                raise _not_allowed()
        elif re.fullmatch(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?", parsed.host):
            # Resolvers read 127.1, 0x7f000001 and 2130706433 as addresses; nobody means a name by them.
            raise Malformed("url: expected a host name, or an address written in full (a.b.c.d)")
        target = URL(f"{parsed.scheme}://{parsed.host_header}{parsed.target}", encoded=True)
        if (target.raw_host, target.port, target.user) != (parsed.host, parsed.port, None):
            raise Malformed("url: it can be read in two ways; write it in a simpler form")
        return target

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        return await self._lookups.find(_OWNER.get(), host, port)


class _CheckedResolver(AbstractResolver):
    def __init__(self, resolve: Resolve, allow: Sequence[Network]) -> None:
        self._resolve = resolve
        self._allow = allow

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = list(dict.fromkeys(await self._resolve(host, port)))
        # One bad answer refuses all: a receiver that mixes them is trying its luck.
        if not all(is_allowed(address, self._allow) for address in addresses):
            raise PermissionError(errno.EACCES, "not allowed")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _kept(response: aiohttp.ClientResponse, deadline: float, bytes_max: int) -> Response:
    kept = bytearray()
    cut: Cut | None = "broken"
    try:
        async with asyncio.timeout_at(deadline):
            while len(kept) <= bytes_max and (
                piece := await response.content.read(bytes_max + 1 - len(kept))
            ):
                kept += piece
        cut = None if len(kept) <= bytes_max else "too_long"
    except TimeoutError:
        cut = "too_slow"
    except (aiohttp.ClientError, OSError):
        pass  # the status line has come; what came of the body is for the caller to judge
    finally:
        if cut is None:
            response.release()
        else:
            response.close()
    return Response(response.status, _joined(response), bytes(kept[:bytes_max]), cut)


def _joined(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    """Two `Content-Encoding: gzip` must not look like one; and every value is text that UTF-8 can hold."""
    headers: dict[str, str] = {}
    for name, given in response.headers.items():
        value = given.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        known = headers.get(name.lower())
        headers[name.lower()] = value if known is None else f"{known}, {value}"
    return headers


def _not_allowed() -> Refused:
    return Refused(
        "the receiver's address is not allowed (private, local or reserved network); an operator may add its"
        " network to MILLSTREAM_OUTBOUND__ALLOW"
    )


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientSSLError, "TLS handshake failed"),
    (ssl.SSLError, "TLS handshake failed"),
    (aiohttp.ClientConnectorDNSError, "the host name cannot be resolved"),
    (ConnectionRefusedError, "connection refused"),
    (ConnectionError, "the receiver closed the connection without an answer"),
    (aiohttp.ServerDisconnectedError, "the receiver closed the connection without an answer"),
    (aiohttp.ClientResponseError, "the answer is not valid HTTP"),
    (aiohttp.InvalidURL, "the URL cannot be used"),
    (ValueError, "the request cannot be sent as HTTP"),
    (aiohttp.ClientConnectorError, "the receiver cannot be reached"),
    (aiohttp.ClientOSError, "the receiver closed the connection without an answer"),
)


def _explained(error: Exception) -> SendError:
    causes = (
        [error.certificate_error] if isinstance(error, aiohttp.ClientConnectorCertificateError) else [error]
    )
    if isinstance(error, aiohttp.ClientConnectorError):
        causes.insert(0, error.os_error)
    if any(isinstance(cause, PermissionError) for cause in causes):
        return _not_allowed()
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SendError(f"TLS certificate refused: {cause.verify_message}")
    found = (words for cause in causes for kind, words in _WORDS if isinstance(cause, kind))
    return SendError(next(found, "the receiver cannot be reached"))
