"""API keys: `ms_<prefix>_<secret>`. The database keeps the prefix and a SHA-256 of the whole key.

Who may do what: a viewer reads; an author also submits executions; an operator also writes definitions; an
admin may do everything. Each key belongs to one tenant and sees nothing of others.
"""

import asyncio
import base64
import hashlib
import hmac
import math
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from services.api.limits import Rates
from services.api.pool import Pool
from services.api.problems import Problem
from services.runtime import entropy

CACHED_S = 2.0  # a revoked key ends within this time
RENEWED_S = 1.0
UNKNOWN_PER_S = 50  # of one address: each costs the database a look
CACHED_MAX = 10_000
_KEY = re.compile(r"ms_(?P<prefix>[0-9a-f]{12})_[A-Za-z0-9_-]{43}", re.ASCII)


class Role(StrEnum):
    """What a key may do, each including the ones before it."""

    VIEWER = "viewer"
    AUTHOR = "author"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether this role may do what `needed` may."""
        return _RANK[self] >= _RANK[needed]


_RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `owner` is the person behind a key of a service or bot; `groups` are those that approve.

    `key_id` is the prefix of the key that was sent; the same caller may have several.
    """

    tenant: str
    principal: str
    role: Role
    owner: str | None = None
    groups: tuple[str, ...] = ()
    key_id: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class _Known:
    secret_hash: bytes
    usable: bool
    caller: Caller
    read_at: float

    def opens(self, text: str) -> bool:
        return hmac.compare_digest(self.secret_hash, _hash(text)) and self.usable


def create(cursor: Any, caller: Caller, expires_at: datetime | None = None) -> str:
    """Store a new key and return its text, which cannot be had again."""
    prefix = entropy.token(6).hex()
    text = f"ms_{prefix}_{base64.urlsafe_b64encode(entropy.token(32)).rstrip(b'=').decode()}"
    cursor.execute(
        "INSERT INTO api.api_key (prefix, secret_hash, tenant, principal, role, owner, groups, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(prefix, _hash(text), caller.tenant, caller.principal, caller.role.value),
            *(caller.owner, list(caller.groups), expires_at),
        ),
    )
    return text


class Keyring:
    """Looks keys up, and remembers an answer for 2 s."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: dict[str, _Known] = {}
        self._recent: dict[str, tuple[float, Caller]] = {}
        self._renewing: dict[str, asyncio.Task[_Known | None]] = {}
        self._unknown: dict[str, float] = {}
        self._guesses = Rates(UNKNOWN_PER_S)

    async def caller(self, authorization: str | None, who: str = "") -> Caller:
        """Who sent this `Authorization` header; `who` is the address, as it is counted.

        Raises Problem (401; 429 when the address has sent too many unknown keys) and DatabaseAway.
        """
        match = _sent(authorization)
        if match is None:
            raise _unauthorized("expected the header Authorization: Bearer ms_<prefix>_<secret>")
        known = await self._lookup(match["prefix"], who)
        if known is None or not known.opens(match[0]):
            raise _unauthorized("the key is unknown, revoked or expired")
        return known.caller

    async def is_good(self, caller: Caller) -> bool:
        """Whether the key that was sent still opens anything, as of at most 2 s ago. Raises DatabaseAway."""
        if caller.key_id is None:
            return True
        known = self._fresh(caller.key_id) or await self._read_once(caller.key_id)
        return known is not None and known.usable

    def known(self, authorization: str) -> Caller | None:
        """Who sent this header, if the key is good and was looked up within the last 2 s.

        A key in use is looked up again before that, so that its callers need not all wait at once.
        """
        now = time.monotonic()
        recent = self._recent.get(authorization)
        if recent is not None and now - recent[0] < RENEWED_S:
            return recent[1]
        match = _sent(authorization)
        known = None if match is None else self._known.get(match["prefix"])
        if match is None or known is None or now - known.read_at >= CACHED_S or not known.opens(match[0]):
            return None
        if now - known.read_at >= RENEWED_S:
            self._renew(match["prefix"])
            return known.caller
        if len(self._recent) >= CACHED_MAX:
            self._recent.clear()
        self._recent[authorization] = (known.read_at, known.caller)
        return known.caller

    def _renew(self, prefix: str) -> "asyncio.Task[_Known | None]":
        if prefix not in self._renewing:
            self._renewing[prefix] = asyncio.create_task(self._read(prefix))
            self._renewing[prefix].add_done_callback(lambda task: self._renewed(prefix, task))
        return self._renewing[prefix]

    def _renewed(self, prefix: str, task: "asyncio.Task[_Known | None]") -> None:
        del self._renewing[prefix]
        if not task.cancelled():
            task.exception()  # whoever asks once the old answer has expired meets the database himself

    async def _read_once(self, prefix: str) -> _Known | None:
        """However many ask at the same time."""
        return await asyncio.shield(self._renew(prefix))

    def _fresh(self, prefix: str) -> _Known | None:
        known = self._known.get(prefix)
        return known if known is not None and time.monotonic() - known.read_at < CACHED_S else None

    async def _lookup(self, prefix: str, who: str) -> _Known | None:
        known = self._fresh(prefix)
        if known is not None or time.monotonic() - self._unknown.get(prefix, -CACHED_S) < CACHED_S:
            return known
        if prefix in self._known:  # one that was good a while ago
            return await self._read_once(prefix)
        wait_s = self._guesses.take(who)
        if wait_s:
            message = "this address has sent too many unknown keys"
            raise Problem("too-many-requests", message, headers={"Retry-After": str(math.ceil(wait_s))})
        known = await self._read_once(prefix)
        if known is not None:
            self._guesses.put_back(who)
            return known
        if len(self._unknown) >= CACHED_MAX:
            self._unknown.clear()
        self._unknown[prefix] = time.monotonic()
        return None

    async def _read(self, prefix: str) -> _Known | None:
        now = time.monotonic()
        row = await self._pool.read(lambda cursor: _select(cursor, prefix))
        if row is None:
            return None
        known = _Known(bytes(row[0]), row[1], _caller(prefix, *row[2:]), now)
        if len(self._known) >= CACHED_MAX:
            self._known.clear()
        self._known[prefix] = known
        return known


def _sent(authorization: str | None) -> re.Match[str] | None:
    scheme, _, text = (authorization or "").partition(" ")
    return _KEY.fullmatch(text.strip()) if scheme.lower() == "bearer" else None


def _select(cursor: Any, prefix: str) -> tuple[Any, ...] | None:
    cursor.execute(
        "SELECT secret_hash, revoked_at IS NULL AND coalesce(expires_at > now(), true),"
        " tenant, principal, role, owner, groups"
        " FROM api.api_key WHERE prefix = %s",
        (prefix,),
    )
    row: tuple[Any, ...] | None = cursor.fetchone()
    return row


def _caller(
    key_id: str, tenant: str, principal: str, role: str, owner: str | None, groups: list[str]
) -> Caller:
    return Caller(tenant, principal, Role(role), owner, tuple(groups), key_id)


def _hash(text: str) -> bytes:
    # A random key of 32 bytes needs no slow hash.
    return hashlib.sha256(text.encode()).digest()


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="millstream"'})
