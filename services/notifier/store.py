"""The dispatcher's side of the delivery table: one transaction records results and claims what is due."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2.extras import execute_values

from services.notifier.core.sharing import Due, chosen
from services.runtime import database

STATEMENT_TIMEOUT_MS = 10_000
LEASE_S = 20
"""Longer than any attempt with its record; a dead dispatcher's deliveries go out again after this."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that is ours until `lease`. Header values and `secret` are sealed."""

    delivery_id: str
    tenant: str
    destination: str
    url: str
    method: str
    headers: Mapping[str, str]
    secret: str | None
    body: bytes
    attempts: int
    created_at: datetime
    lease: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of one attempt. `state` is pending (until `next_attempt_at`), delivered or dead."""

    claim: Claim
    started_at: datetime
    duration_ms: int
    status: int | None
    error: str | None
    response: str | None
    state: str
    next_attempt_at: datetime


@dataclass(frozen=True, slots=True)
class Turn:
    """What one transaction found. `now` is the database's clock, `next_due_at` the earliest later instant."""

    now: datetime
    claims: tuple[Claim, ...]
    next_due_at: datetime | None
    superseded: tuple[str, ...]


class Store:
    """One connection, used by one thread; opened anew after it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: database.Connection | None = None

    def turn(
        self,
        results: Sequence[Recorded],
        free: Mapping[str, int],
        per_destination: int,
        busy: Mapping[str, int],
        total: int,
    ) -> Turn:
        """Record `results`, then claim due deliveries, as many as core/sharing.py says.

        `free`: for destinations with another limit than `per_destination`, how many may be claimed now.
        `busy`: attempts in flight by tenant, of at most `total`.
        Blocks up to the database's timeouts. Raises psycopg2.Error; nothing was recorded or claimed then,
        or the answer was lost: results may be given again, claims run out.
        """
        try:
            connection = self._connected()
            with connection, connection.cursor() as cursor:
                superseded = _record(cursor, results) if results else ()
                claims: tuple[Claim, ...] = ()
                if sum(busy.values()) < total:
                    claims = _claim(cursor, free, per_destination, busy, total)
                cursor.execute(_NEXT)
                [(now, next_due_at)] = cursor.fetchall()
            return Turn(now, claims, next_due_at, superseded)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> database.Connection:
        if self._connection is None:
            self._connection = database.connect(
                self._url, "notifier-dispatcher", statement_timeout_ms=STATEMENT_TIMEOUT_MS
            )
        return self._connection


def _claim(
    cursor: Any, free: Mapping[str, int], per_destination: int, busy: Mapping[str, int], total: int
) -> tuple[Claim, ...]:
    limits = {"names": list(free), "limits": list(free.values()), "limit": per_destination}
    cursor.execute(_DUE, {**limits, "total": total})
    due = [Due(*row) for row in cursor.fetchall()]
    room = {one.destination: free.get(one.destination, per_destination) for one in due}
    ids = chosen(due, busy, room, total)
    if not ids:
        return ()
    cursor.execute(_CLAIM, {"ids": ids, "lease_s": LEASE_S})
    found = (dict(zip(Claim.__dataclass_fields__, row, strict=True)) for row in cursor.fetchall())
    return tuple(Claim(**{**fields, "body": bytes(fields["body"])}) for fields in found)


def _record(cursor: Any, results: Sequence[Recorded]) -> tuple[str, ...]:
    """Write the results whose lease still holds; returns the delivery ids of the others."""
    values = [
        (
            result.claim.delivery_id,
            result.claim.lease,
            result.claim.attempts + 1,
            result.state,
            result.next_attempt_at,
            result.started_at,
            result.duration_ms,
            result.status,
            result.error,
            result.response,
        )
        for result in results
    ]
    written = execute_values(cursor, _RECORD, values, template=_RECORD_ROW, page_size=len(values), fetch=True)
    done = {row[0] for row in written}
    return tuple(id for id, *_ in values if id not in done)


_RECORD_ROW = (
    "(%s, %s::timestamptz, %s, %s, %s::timestamptz, %s::timestamptz, %s, %s::integer, %s::text, %s::text)"
)
_RECORD = """
WITH result (delivery_id, lease, attempt, state, next_attempt_at, started_at, duration_ms, status, error,
    response) AS (VALUES %s),
written AS (
    UPDATE notifier.delivery AS d
    SET state = r.state, attempts = r.attempt, next_attempt_at = r.next_attempt_at, last_status = r.status,
        last_error = r.error, finished_at = CASE WHEN r.state = 'pending' THEN NULL ELSE now() END
    FROM result AS r
    WHERE d.delivery_id = r.delivery_id AND d.state = 'pending' AND d.next_attempt_at = r.lease
    RETURNING d.delivery_id)
INSERT INTO notifier.attempt (delivery_id, attempt, started_at, duration_ms, status, error, response)
SELECT delivery_id, attempt, started_at, duration_ms, status, error, response
FROM result JOIN written USING (delivery_id)
RETURNING delivery_id
"""

# The longest due first, a destination's deliveries of one tenant spread over the others': what is not chosen
# of these is unlocked with the transaction.
_DUE = """
WITH room AS (
    SELECT destination, tenant, least(coalesce(own.free, %(limit)s), %(total)s) AS free
    FROM notifier.waiting
    LEFT JOIN unnest(%(names)s::text[], %(limits)s::integer[]) AS own (destination, free)
        USING (destination)),
due AS (
    SELECT delivery_id, room.tenant, room.destination, next_attempt_at
    FROM room CROSS JOIN LATERAL (
        SELECT delivery_id, next_attempt_at FROM notifier.delivery AS d
        WHERE d.state = 'pending' AND d.destination = room.destination AND d.tenant = room.tenant
            AND d.next_attempt_at <= now()
        ORDER BY d.next_attempt_at LIMIT room.free FOR UPDATE SKIP LOCKED) AS found)
SELECT delivery_id, tenant, destination FROM due
ORDER BY row_number() OVER (PARTITION BY destination, tenant ORDER BY next_attempt_at), next_attempt_at
"""
_CLAIM = """
UPDATE notifier.delivery
SET next_attempt_at = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE delivery_id = ANY(%(ids)s)
RETURNING delivery_id, tenant, destination, url, method, headers, secret, body, attempts, created_at,
    next_attempt_at
"""
# What is due already and was not claimed waits for room, and the end of an attempt makes room.
_NEXT = """
SELECT clock_timestamp(), (
    SELECT next_attempt_at FROM notifier.delivery
    WHERE state = 'pending' AND next_attempt_at > now() ORDER BY next_attempt_at LIMIT 1)
"""
