"""A source database: one connection, one snapshot for the whole export, and what its errors mean."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

import psycopg2
from psycopg2 import errorcodes
from structlog.typing import FilteringBoundLogger

from services.executor.steps.outcome import Fail, Outcome, Retry
from services.jobs.sources import Tenants, closed, is_open
from services.runtime import database
from services.runtime.database import Connection, Failure

# What the session must not inherit, because the bytes of a file would depend on it.
_SETTINGS = (
    b"SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL TimeZone = 'UTC';"
    b"SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1;"
    # Rows of an unordered export come in the table's own order, the same every time.
    b"SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0;"
    # Between two files nothing is asked of the source while a blob store is slow.
    b"SET LOCAL idle_in_transaction_session_timeout = '10min';"
)
_DATA = "22"
_NO_SUCH_OPERATOR = "42883"
_OUR_FAULT = (_DATA, "42", "3F", "0A", "25006")
_TELLING = ("42", "3F")
_CANCELLED = "57014"


@dataclass(frozen=True, slots=True)
class Sources:
    """Database URLs (secret) and tenants by the name of their source."""

    urls: Mapping[str, str]
    tenants: Tenants

    def url(self, name: str, tenant: str) -> str:
        """Where the source is. Raises Ended when it is not open to the tenant, or not known here."""
        if not is_open(self.tenants, name, tenant):
            raise Ended(Fail("source_closed", closed(name)))
        if name not in self.urls:
            key = f"MILLSTREAM_SOURCES__{name.upper()}"
            raise Ended(Fail("unknown_source", f"source {name} is not known to this worker; set {key}"))
        return self.urls[name]


class Ended(Exception):
    """The step ends here with `outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


class Snapshot:
    """The source as it stood at one instant, for at most `timeout_s`."""

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + timeout_s
        self._cursor = connection.cursor()
        self._cursor.execute(_SETTINGS)
        taken_at: datetime = self._one(b"SELECT statement_timestamp()")
        self.taken_at = taken_at.astimezone(UTC)

    @property
    def cursor(self) -> psycopg2.extensions.cursor:
        """For quoting."""
        return self._cursor

    def cancel(self) -> None:
        """End the query that runs now, if any; for another thread."""
        with suppress(psycopg2.Error):  # closed meanwhile, or the source is away: nothing runs any more
            self._connection.cancel()

    def count(self, query: bytes) -> int:
        """The one number that `query` selects."""
        self._limit_time()
        return int(self._one(query))

    def column(self, query: bytes) -> list[Any]:
        """The values that `query` selects: one column of few rows."""
        self._limit_time()
        self._cursor.execute(query)
        return [row[0] for row in self._cursor.fetchall()]

    def fault(self, query: bytes) -> str | None:
        """The source's sentence about a literal in `query` that its column cannot take; None when all fit.

        The source reads the query and does not run it: no row is looked at and no view computed, so an error
        here is of a literal of the request, and the sentence quotes nothing else.
        """
        self._limit_time()
        self._cursor.execute(b"SAVEPOINT checked")  # an error would end the snapshot
        try:
            self._cursor.execute(b"PREPARE checked AS " + query)
        except psycopg2.Error as error:
            state = error.pgcode or ""
            if not state.startswith(_DATA) and state != _NO_SUCH_OPERATOR:
                raise
            self._cursor.execute(b"ROLLBACK TO SAVEPOINT checked; RELEASE SAVEPOINT checked")
            return f"{error.diag.message_primary} (SQLSTATE {state})"
        self._cursor.execute(b"DEALLOCATE checked; RELEASE SAVEPOINT checked")
        return None

    def check(self, query: bytes, what: str) -> None:
        """Raises Ended when a literal of `what` (one filter, say) does not fit; see `fault`."""
        if fault := self.fault(query):
            raise Ended(Fail("filter_error", f"{what}: {fault}"))

    def copy(self, query: bytes, options: bytes, sink: BinaryIO) -> int:
        """Stream the rows of `query` into `sink` and return their number."""
        self._limit_time()
        self._cursor.copy_expert(b"COPY (" + query + b") TO STDOUT WITH (" + options + b")", sink)
        return self._cursor.rowcount

    def _one(self, query: bytes) -> Any:
        self._cursor.execute(query)
        row = self._cursor.fetchone()
        assert row is not None
        return row[0]

    def _limit_time(self) -> None:
        left_ms = int((self._deadline - time.monotonic()) * 1000)
        if left_ms <= 0:
            raise Ended(_TIMED_OUT)
        self._cursor.execute("SET LOCAL statement_timeout = %s", (left_ms,))


_TIMED_OUT = Fail("timeout", "the step took longer than its timeout; narrow the export")


@contextmanager
def snapshot(
    url: str, name: str, table: str, timeout_s: float, log: FilteringBoundLogger
) -> Iterator[Snapshot]:
    """One read-only REPEATABLE READ transaction on the source called `name`, which is at `url`.

    Raises Ended for everything that the source answers with; its messages hold no part of a URL.
    """
    started = time.monotonic()
    try:
        with closing(database.connect(url, "millstream-worker")) as connection:
            connection.set_client_encoding("UTF8")
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            yield Snapshot(connection, timeout_s)
    except psycopg2.Error as error:
        late = time.monotonic() - started >= timeout_s
        # libpq never repeats a password, but hosts and roles are not for those who ask for reports.
        log.warning("source_error", source=name, sqlstate=error.pgcode, error=type(error).__name__)
        raise Ended(_meaning(error, name, table, late=late)) from error


def _meaning(error: psycopg2.Error, name: str, table: str, *, late: bool) -> Outcome:
    state = error.pgcode
    where = f"source {name}, table {table}"
    if state is None:
        if database.classify(error) is Failure.BACKPRESSURE:
            return Retry("source_unavailable", f"source {name} cannot be reached, or the connection was lost")
        return Fail("source_unusable", f"source {name}: the URL in the worker's settings is not usable")
    if state == _CANCELLED and late:
        return _TIMED_OUT
    if state.startswith(_OUR_FAULT):
        # Of data errors only the kind is named: their text may quote values of columns nobody may see.
        text = error.diag.message_primary if state.startswith(_TELLING) else _kind_of(state)
        return Fail("dataset_error", f"{where}: {text} (SQLSTATE {state})")
    if database.classify(error) is Failure.BACKPRESSURE:
        return Retry("source_unavailable", f"{where}: the source cannot answer now (SQLSTATE {state})")
    return Retry("source_error", f"{where}: the source failed (SQLSTATE {state})")


def _kind_of(state: str) -> str:
    try:
        kind = errorcodes.lookup(state).lower().replace("_", " ")
    except KeyError:
        kind = "an error of data"
    return f"the source could not compute its rows: {kind}"
