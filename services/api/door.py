"""Who may come in: what one address, one key and all of them together may take of this process at a time."""

import math
from collections.abc import MutableMapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Protocol

from prometheus_client import Gauge

from services.api.keys import Caller
from services.api.limits import HELD, Places, Rates, of_address
from services.api.problems import Problem
from services.runtime import telemetry
from services.runtime.settings import Api

CONNECTIONS_MAX = 4_000
KEYS_OF_AN_ADDRESS = 5
"""An address may take this many times what a key may: several people, or services, sit behind one."""
ADDRESSES_OF_DOWNLOADS = 4
"""One address gets at most this part of the downloads."""
RETRY_S = 5
Scope = MutableMapping[str, Any]

OPEN = Gauge("http_connections", "Open connections", registry=telemetry.REGISTRY)


class Closable(Protocol):
    """A connection, as far as it can be sent away."""

    def abort(self) -> None:
        """Close it at once, whatever is unsent."""


class Door:
    """Counts what is taken. Belongs to the event loop."""

    def __init__(self, limits: Api | None = None, connections_max: int = CONNECTIONS_MAX) -> None:
        limits = limits or Api()
        self.trusted = limits.trusted_proxies
        self.open: set[Closable] = set()
        self.is_watched = False
        """Whether connections are looked at for being stuck."""
        self._idle: dict[Closable, None] = {}
        self._connections_max = connections_max
        self._connections = Places(limits.connections * KEYS_OF_AN_ADDRESS)
        self._busy = Places(limits.connections)
        self._rates = Rates(limits.requests_per_s)
        self._address_rates = Rates(limits.requests_per_s * KEYS_OF_AN_ADDRESS)
        self._waits = _Both(limits.waits)
        self._streams = _Both(limits.streams)
        self._downloads = Places(math.ceil(limits.downloads / ADDRESSES_OF_DOWNLOADS), limits.downloads)

    # ------------------------------------------------------------ connections

    def connected(self, connection: Closable, address: str) -> bool:
        """Let a connection in; False when its address has too many, or all are busy.

        One on which no request is under way makes room for a new one, the longest idle first.
        """
        if not self.is_trusted(address) and not self._connections.take(of_address(address)):
            return False
        if len(self.open) >= self._connections_max:
            if not self._idle:
                self._forget(address)
                return False
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.abort()
        self.open.add(connection)
        self._idle[connection] = None
        OPEN.set(len(self.open))
        return True

    def busy(self, connection: Closable) -> None:
        """A request has begun on it."""
        self._idle.pop(connection, None)

    def idle(self, connection: Closable) -> None:
        """Its requests are answered."""
        if connection in self.open:
            self._idle[connection] = None

    def gone(self, connection: Closable, address: str) -> None:
        """It is closed; one that was not let in is nothing here."""
        if connection in self.open:
            self.open.discard(connection)
            self._idle.pop(connection, None)
            self._forget(address)
            OPEN.set(len(self.open))

    def _forget(self, address: str) -> None:
        if not self.is_trusted(address):
            self._connections.give_back(of_address(address))

    def is_trusted(self, address: str) -> bool:
        """Whether it is a proxy's, whose X-Forwarded-For counts."""
        return bool(self.trusted) and _lies_in(address, self.trusted)

    def origin(self, peer: str, forwarded: str) -> str:
        """Whose request a trusted proxy hands on: the last address that is no trusted proxy's own."""
        for part in reversed(forwarded.split(",")):
            address = part.strip()
            if not _is_address(address):
                break
            if not self.is_trusted(address):
                return address
        return peer

    # ------------------------------------------------------------ requests

    def request(self, who: str) -> Problem | None:
        """Count a request of an address: the refusal, if it has made too many."""
        wait_s = self._address_rates.take(who)
        return None if not wait_s else _too_fast("this address", wait_s)

    def counts(self, caller: Caller) -> bool:
        """Count a request of a key that is answered at once; False when there were too many."""
        return not self._rates.take(_key(caller))

    def enter(self, scope: Scope, caller: Caller) -> None:
        """Count a request of a key, and that it is under way. Raises Problem (429)."""
        wait_s = self._rates.take(_key(caller))
        if wait_s:
            raise _too_fast("this key", wait_s)
        if not self._busy.hold(scope, _key(caller)):
            raise _too_many("requests under way")

    def wait(self, scope: Scope, caller: Caller) -> None:
        """Count a request that waits for an execution's end. Raises Problem (429)."""
        if not self._waits.hold(scope, caller):
            raise _too_many("requests that wait")

    def stream(self, scope: Scope, caller: Caller) -> None:
        """Count a stream. Raises Problem (429)."""
        if not self._streams.hold(scope, caller):
            raise Problem(
                "too-many-streams",
                "this key or address has too many streams open; close one and try again",
                headers={"Retry-After": str(RETRY_S)},
            )

    def download(self, scope: Scope) -> None:
        """Count a download. Raises Problem: 429 when the address has too many, 503 when there are."""
        if self._downloads.is_full():
            raise Problem(
                "unavailable", "too many downloads are under way", headers={"Retry-After": str(RETRY_S)}
            )
        if not self._downloads.hold(scope, address_of(scope)):
            raise _too_many("downloads")


class _Both:
    """Places by key, and more of them by address."""

    def __init__(self, each: int) -> None:
        self._keys = Places(each)
        self._addresses = Places(each * KEYS_OF_AN_ADDRESS)

    def hold(self, scope: Scope, caller: Caller) -> bool:
        if not self._keys.hold(scope, _key(caller)):
            return False
        if not self._addresses.hold(scope, address_of(scope)):
            scope[HELD].pop()()
            return False
        return True


def address_of(scope: Scope) -> str:
    """Who sent a request, as its address is counted."""
    client = scope.get("client")
    return of_address(client[0]) if client else ""


def _key(caller: Caller) -> str:
    return caller.key_id or f"{caller.tenant}/{caller.principal}"


def _too_fast(who: str, wait_s: float) -> Problem:
    headers = {"Retry-After": str(math.ceil(wait_s))}
    return Problem("too-many-requests", f"{who} has sent too many requests in a second", headers=headers)


def _too_many(what: str) -> Problem:
    message = f"this key or address has too many {what}; let one end and try again"
    return Problem("too-many-requests", message, headers={"Retry-After": str(RETRY_S)})


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _lies_in(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    if not _is_address(address):
        return False
    parsed = ip_address(address)
    return any(parsed.version == network.version and parsed in network for network in networks)
