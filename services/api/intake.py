"""Group commit of submits: one thread, one statement per group, an answer only after the commit.

A request row and its `job.requested` record are written in one transaction, so an accepted request survives
the broker being down. Submitting the same id again stores nothing and returns what is stored.

All records of a group are one row of the outbox. The statement is prepared, is its own transaction, and gets
its columns as array literals: the driver's adaptation of single values cost more than the database's work.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, cast

import psycopg2
from msgspec import Struct
from prometheus_client import Histogram

from services.api import quota
from services.api.pool import STATEMENT_TIMEOUT_MS, DatabaseAway
from services.api.quota import ACCEPTED, TOLD, OverQuota
from services.contracts.envelope import Outgoing
from services.runtime import crash, outbox, telemetry
from services.runtime.database import Connection, Failure, classify, connect
from services.runtime.settings import Quota

GROUP_MAX = 500
GROUP_BYTES_MAX = 1 << 20
WAITING_MAX = 5_000
WITHIN_S = 5.0

log = telemetry.get_logger()
GROUP = Histogram(
    "submit_group_size",
    "Submits per commit",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
    registry=telemetry.REGISTRY,
)


class Submit(Struct, frozen=True, gc=False):  # a tenth of what a frozen dataclass costs to make
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


class Stored(Struct, frozen=True, gc=False):
    """Whose request the table holds under the id, and what it was: this one (`is_new`), or an earlier one."""

    tenant: str
    body_hash: str | None
    is_new: bool = False


class Overloaded(Exception):
    """Too many submits wait for the database."""


class Refused(Exception):
    """The database cannot store this one request."""


@dataclass(slots=True, eq=False)
class _Waiting:
    submit: Submit
    future: "asyncio.Future[Stored]"
    deadline: float


_Outcome = tuple[_Waiting, Stored | Exception]


class Intake:
    """The committing thread. `on_commit` is called after each commit that added records.

    `submit` belongs to one event loop; everything else may be called from any thread.
    """

    def __init__(self, database_url: str, quota: Quota, on_commit: Callable[[], None]) -> None:
        self._url, self._quota = database_url, quota
        self._known: set[str] = set()
        """Tenants with a row that their submits lock."""
        self._on_commit = on_commit
        self._connection: Connection | None = None
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._open: deque[_Waiting] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._thread = Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin; the connection is made when first needed."""
        self._thread.start()

    def submit(self, item: Submit) -> "asyncio.Future[Stored]":
        """Queue a request. The future ends with Stored, DatabaseAway, OverQuota or Refused, within WITHIN_S.

        Raises Overloaded.
        """
        if self._closing or self._waiting.qsize() >= WAITING_MAX:
            raise Overloaded
        loop = self._loop = asyncio.get_running_loop()
        waiting = _Waiting(item, loop.create_future(), time.monotonic() + WITHIN_S)
        if not self._open:
            loop.call_later(WITHIN_S, self._expire)
        self._open.append(waiting)
        self._waiting.put(waiting)
        return waiting.future

    def close(self, timeout_s: float) -> None:
        """Commit what waits, refuse what comes, stop."""
        self._closing = True
        self._waiting.put(None)
        self._thread.join(timeout_s)

    def _expire(self) -> None:
        """One timer for all: the oldest comes first. Who is told to try again may be stored all the same."""
        now = time.monotonic()
        while self._open and (self._open[0].deadline <= now or self._open[0].future.done()):
            waiting = self._open.popleft()
            if not waiting.future.done():
                waiting.future.set_exception(DatabaseAway("the database does not answer"))
        if self._open:
            asyncio.get_running_loop().call_later(self._open[0].deadline - now, self._expire)

    def _run(self) -> None:
        while group := self._next_group():
            now = time.monotonic()
            # The callers of the others were told to try again, or are gone.
            wanted = [item for item in group if item.deadline > now and not item.future.done()]
            if wanted:
                GROUP.observe(len(wanted))
                self._answer(wanted)
        self._drop()

    def _next_group(self) -> list[_Waiting]:
        """The submits that came during the former commit; empty once closed."""
        group: list[_Waiting] = []
        size = 0
        with contextlib.suppress(Empty):
            while len(group) < GROUP_MAX and size < GROUP_BYTES_MAX:
                item = self._waiting.get(block=not group)
                if item is None:
                    self._waiting.put(None)
                    break
                group.append(item)
                size += len(item.submit.record.value or b"")
        return group

    def _answer(self, group: Sequence[_Waiting]) -> None:
        try:
            stored = self._store([item.submit for item in group])
        except psycopg2.Error as error:
            self._fail(group, error)
            return
        except Exception as error:
            self._tell((item, error) for item in group)
            raise
        self._tell(zip(group, stored, strict=True))

    def _tell(self, outcomes: Iterable[_Outcome]) -> None:
        """Once for a whole group: waking the event loop costs a system call."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # a loop that has ended: so have its callers
            self._loop.call_soon_threadsafe(self._settle, list(outcomes))

    def _settle(self, outcomes: Sequence[_Outcome]) -> None:
        for item, outcome in outcomes:
            if item.future.done():
                continue
            if isinstance(outcome, Exception):
                item.future.set_exception(outcome)
            else:
                item.future.set_result(outcome)
        while len(self._open) > 1 and self._open[0].future.done():  # the last one keeps the timer's place
            self._open.popleft()

    def _fail(self, group: Sequence[_Waiting], error: psycopg2.Error) -> None:
        match classify(error):
            case Failure.BACKPRESSURE:
                log.warning("submit_database_away", count=len(group), error=type(error).__name__)
                self._tell((item, DatabaseAway("the database is away")) for item in group)
            case Failure.DATA if len(group) > 1:
                for item in group:  # alone, each one shows whether it is the one
                    self._answer([item])
            case Failure.DATA:
                log.error("submit_refused_by_database", sqlstate=error.pgcode)
                self._tell([(group[0], Refused("the database cannot store this request"))])
            case Failure.OTHER:
                self._tell((item, error) for item in group)
                raise error

    def _store(self, submits: Sequence[Submit]) -> list[Stored | OverQuota]:
        """Repeated once when a kept connection is dead: storing the same ids twice changes nothing.

        The server may have committed before the connection died: what it stored then is new all the same.
        """
        kept = self._connection is not None
        try:
            return self._commit(self._connected(), submits)
        except psycopg2.Error as error:
            self._drop()
            if not kept or classify(error) is not Failure.BACKPRESSURE:
                raise
        try:
            return self._commit(self._connected(), submits, again=True)
        except psycopg2.Error:
            self._drop()
            raise

    def _commit(
        self, connection: Connection, submits: Sequence[Submit], *, again: bool = False
    ) -> list[Stored | OverQuota]:
        first = {submit.execution_id: submit for submit in reversed(submits)}
        crash.reach("api.submit.commit")
        with connection.cursor() as cursor:
            if unknown := {submit.tenant for submit in submits} - self._known:
                quota.know(cursor, [*unknown])
                self._known |= unknown
            cursor.execute(_STORE, _arrays(list(first.values()), self._quota))
            created = {row[0] for row in cursor.fetchall()}
            crash.reach("api.submit.committed")
            if created or again:
                self._on_commit()
            found = _select(cursor, [id for id in first if id not in created])
            if again:
                created |= {id for id, _, _, at in found if at == first[id].submitted_at}
            known = {id: Stored(tenant, body_hash) for id, tenant, body_hash, _ in found}
        return [
            Stored(submit.tenant, submit.body_hash, is_new=True)
            if id in created and first[id] is submit
            else known.get(id)
            or (
                Stored(first[id].tenant, first[id].body_hash)
                if id in created
                else OverQuota(self._quota.of(submit.tenant))
            )
            for submit in submits
            for id in (submit.execution_id,)
        ]

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(
                self._url, "millstream-api-intake", statement_timeout_ms=STATEMENT_TIMEOUT_MS
            )
            self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                # its plan must serve when the tables have grown
                cursor.execute("SET enable_seqscan = off")
                cursor.execute(_PREPARE)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_COLUMNS = (
    "execution_id, tenant, principal, name, job_type, tag, dataset_id, dataset_revision, body_hash,"
    " request_data, requested_channel, submitted_at, record"
)
_TYPES = (
    *("text", "text", "text", "text", "text", "text", "text", "bigint", "text"),
    *("json", "text", "timestamptz", "bytea", "bytea", "bigint"),
)
_PREPARE = f"""
PREPARE store ({", ".join(f"{type}[]" for type in _TYPES)}) AS
WITH asked AS (
    SELECT * FROM unnest({", ".join(f"${number}" for number in range(1, len(_TYPES) + 1))})
        WITH ORDINALITY AS a({_COLUMNS}, head, quota, place)),
accepted AS MATERIALIZED (
    SELECT tenant, open FROM api.tenant_load WHERE side = {ACCEPTED} AND tenant IN (SELECT tenant FROM asked)
    ORDER BY tenant FOR UPDATE),
load AS (
    SELECT tenant, open + coalesce((SELECT told.open FROM api.tenant_load AS told
        WHERE told.tenant = accepted.tenant AND told.side = {TOLD}), 0) AS open FROM accepted),
fresh AS (
    SELECT asked.*, row_number() OVER (PARTITION BY tenant ORDER BY place) AS rank FROM asked
    WHERE (SELECT true FROM api.job_request AS known WHERE known.execution_id = asked.execution_id) IS NULL),
stored AS (
    INSERT INTO api.job_request ({_COLUMNS})
    SELECT {_COLUMNS} FROM fresh JOIN load USING (tenant) WHERE rank <= quota - open
    ON CONFLICT DO NOTHING RETURNING execution_id, tenant),
counted AS (
    UPDATE api.tenant_load AS known SET open = known.open + new.count
    FROM (SELECT tenant, count(*) FROM stored GROUP BY tenant) AS new
    WHERE known.tenant = new.tenant AND known.side = {ACCEPTED}),
queued AS (
    INSERT INTO api.outbox (topic, value, headers, packed)
    SELECT 'job.requested', string_agg(head || record, ''), '[]', true
    FROM asked JOIN stored USING (execution_id) HAVING count(*) > 0)
SELECT execution_id FROM stored
"""  # noqa: S608
_STORE = f"EXECUTE store ({', '.join(['%s'] * len(_TYPES))})"


def _arrays(submits: Sequence[Submit], quota: Quota) -> tuple[str, ...]:
    return (
        _texts([s.execution_id for s in submits]),
        _texts([s.tenant for s in submits]),
        _texts([s.principal for s in submits]),
        _texts([s.name for s in submits]),
        _texts([s.job_type for s in submits]),
        _texts([s.tag for s in submits]),
        _texts([s.dataset_id for s in submits]),
        _texts([None if s.dataset_revision is None else str(s.dataset_revision) for s in submits]),
        _texts([s.body_hash for s in submits]),
        _texts([s.request_data for s in submits]),
        _texts([s.requested_channel for s in submits]),
        _texts([s.submitted_at.isoformat() for s in submits]),
        _bytes([s.record.value or b"" for s in submits]),
        _bytes([outbox.pack_head(s.record) for s in submits]),
        _texts([str(quota.of(s.tenant)) for s in submits]),
    )


def _texts(values: Iterable[str | None]) -> str:
    """An array as PostgreSQL writes it."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _bytes(values: Iterable[bytes]) -> str:
    return "{" + ",".join([rf'"\\x{value.hex()}"' for value in values]) + "}"


def _select(cursor: Any, ids: Sequence[str]) -> Sequence[tuple[str, str, str | None, datetime]]:
    if not ids:
        return ()
    cursor.execute(
        "SELECT execution_id, tenant, body_hash, submitted_at FROM api.job_request"
        " WHERE execution_id = ANY(%s)",
        (list(ids),),
    )
    return cast(Sequence[tuple[str, str, str | None, datetime]], cursor.fetchall())
