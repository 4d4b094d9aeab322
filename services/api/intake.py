"""Group commit of submits: one thread, one statement per group, an answer only after the commit.

A request row and its `job.requested` record are written in one transaction, so an accepted request survives
the broker being down. Submitting the same id again stores nothing and returns what is stored.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2
from prometheus_client import Histogram

from services.api.pool import STATEMENT_TIMEOUT_MS, DatabaseAway
from services.contracts.envelope import Outgoing
from services.runtime import crash, outbox, telemetry
from services.runtime.database import Connection, Failure, classify, connect

GROUP_MAX = 500
WAITING_MAX = 5_000
WITHIN_S = 5.0

log = telemetry.get_logger()
GROUP = Histogram(
    "submit_group_size",
    "Submits per commit",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
    registry=telemetry.REGISTRY,
)


@dataclass(frozen=True, slots=True)
class Submit:
    """A checked request, ready to be stored."""

    execution_id: str
    tenant: str
    principal: str
    name: str
    job_type: str
    tag: str
    dataset_id: str | None
    dataset_revision: int | None
    body_hash: str
    request_data: str
    requested_channel: str | None
    submitted_at: datetime
    record: Outgoing


@dataclass(frozen=True, slots=True)
class Stored:
    """Whose request the table holds under the id, and what it was: this one (`is_new`), or an earlier one."""

    tenant: str
    body_hash: str | None
    is_new: bool = False


class Overloaded(Exception):
    """Too many submits wait for the database."""


class Refused(Exception):
    """The database cannot store this one request."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    submit: Submit
    future: "Future[Stored]"
    deadline: float


class Intake:
    """The committing thread. `on_commit` is called after each commit that added records."""

    def __init__(self, database_url: str, on_commit: Any) -> None:
        self._url = database_url
        self._on_commit = on_commit
        self._connection: Connection | None = None
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin; the connection is made when first needed."""
        self._thread.start()

    def submit(self, item: Submit) -> "Future[Stored]":
        """Queue a request. The future ends with Stored, DatabaseAway or Refused. Raises Overloaded."""
        future: Future[Stored] = Future()
        with self._changed:
            if self._closing or len(self._waiting) >= WAITING_MAX:
                raise Overloaded
            self._waiting.append(_Waiting(item, future, time.monotonic() + WITHIN_S))
            self._changed.notify()
        return future

    def close(self, timeout_s: float) -> None:
        """Commit what waits, refuse what comes, stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while group := self._next_group():
            now = time.monotonic()
            # The callers of the others were told to try again, or are gone.
            wanted = [
                item for item in group if item.future.set_running_or_notify_cancel() and item.deadline > now
            ]
            for item in group:
                if item.deadline <= now and not item.future.cancelled():
                    item.future.set_exception(DatabaseAway("the database is too slow"))
            if wanted:
                GROUP.observe(len(wanted))
                self._answer(wanted)
        self._drop()

    def _next_group(self) -> list[_Waiting]:
        """The submits that came during the former commit; empty once closed."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP_MAX))]

    def _answer(self, group: Sequence[_Waiting]) -> None:
        try:
            stored = self._store([item.submit for item in group])
        except psycopg2.Error as error:
            self._fail(group, error)
            return
        except Exception as error:
            for item in group:
                item.future.set_exception(error)
            raise
        for item, answer in zip(group, stored, strict=True):
            item.future.set_result(answer)

    def _fail(self, group: Sequence[_Waiting], error: psycopg2.Error) -> None:
        match classify(error):
            case Failure.BACKPRESSURE:
                log.warning("submit_database_away", count=len(group), error=type(error).__name__)
                away = DatabaseAway("the database is away")
                for item in group:
                    item.future.set_exception(away)
            case Failure.DATA if len(group) > 1:
                for item in group:  # alone, each one shows whether it is the one
                    self._answer([item])
            case Failure.DATA:
                log.error("submit_refused_by_database", sqlstate=error.pgcode)
                group[0].future.set_exception(Refused("the database cannot store this request"))
            case Failure.OTHER:
                for item in group:
                    item.future.set_exception(error)
                raise error

    def _store(self, submits: Sequence[Submit]) -> list[Stored]:
        """Repeated once when a kept connection is dead: storing the same ids twice changes nothing."""
        kept = self._connection is not None
        try:
            return self._commit(self._connected(), submits)
        except psycopg2.Error as error:
            self._drop()
            if not kept or classify(error) is not Failure.BACKPRESSURE:
                raise
        try:
            return self._commit(self._connected(), submits)
        except psycopg2.Error:
            self._drop()
            raise

    def _commit(self, connection: Connection, submits: Sequence[Submit]) -> list[Stored]:
        first = {submit.execution_id: submit for submit in reversed(submits)}
        with connection, connection.cursor() as cursor:
            cursor.execute(_INSERT, _arguments(list(first.values())))
            created = {row[0] for row in cursor.fetchall()}
            known = _select(cursor, [id for id in first if id not in created])
            if created:
                outbox.announce(cursor, "api")
            crash.reach("api.submit.commit")
        if created:
            self._on_commit()
        crash.reach("api.submit.committed")
        return [
            Stored(submit.tenant, submit.body_hash, is_new=True)
            if id in created and first[id] is submit
            else known.get(id) or Stored(first[id].tenant, first[id].body_hash)
            for submit in submits
            for id in (submit.execution_id,)
        ]

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(
                self._url, "millstream-api-intake", statement_timeout_ms=STATEMENT_TIMEOUT_MS
            )
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_INSERT = """
WITH asked AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                         %s::bigint[], %s::text[], %s::json[], %s::text[], %s::timestamptz[], %s::bytea[],
                         %s::text[], %s::text[])
        AS a(execution_id, tenant, principal, name, job_type, tag, dataset_id, dataset_revision, body_hash,
             request_data, requested_channel, submitted_at, record, topic, headers)),
stored AS (
    INSERT INTO api.job_request (execution_id, tenant, principal, name, job_type, tag, dataset_id,
                                 dataset_revision, body_hash, request_data, requested_channel,
                                 submitted_at, record)
    SELECT execution_id, tenant, principal, name, job_type, tag, dataset_id, dataset_revision, body_hash,
           request_data, requested_channel, submitted_at, record FROM asked
    ON CONFLICT DO NOTHING RETURNING execution_id),
queued AS (
    INSERT INTO api.outbox (topic, key, value, headers)
    SELECT topic, convert_to(execution_id, 'UTF8'), record, headers
    FROM asked JOIN stored USING (execution_id))
SELECT execution_id FROM stored
"""


def _arguments(submits: Sequence[Submit]) -> tuple[list[Any], ...]:
    return (
        [s.execution_id for s in submits],
        [s.tenant for s in submits],
        [s.principal for s in submits],
        [s.name for s in submits],
        [s.job_type for s in submits],
        [s.tag for s in submits],
        [s.dataset_id for s in submits],
        [s.dataset_revision for s in submits],
        [s.body_hash for s in submits],
        [s.request_data for s in submits],
        [s.requested_channel for s in submits],
        [s.submitted_at for s in submits],
        [psycopg2.Binary(s.record.value or b"") for s in submits],
        [s.record.topic for s in submits],
        [outbox.headers_text(s.record.headers) for s in submits],
    )


def _select(cursor: Any, ids: Sequence[str]) -> dict[str, Stored]:
    if not ids:
        return {}
    cursor.execute(
        "SELECT execution_id, tenant, body_hash FROM api.job_request WHERE execution_id = ANY(%s)",
        (list(ids),),
    )
    return {id: Stored(tenant, body_hash) for id, tenant, body_hash in cursor.fetchall()}
