"""Connections to PostgreSQL and what a database error means for the work in hand."""

from enum import Enum

import psycopg2
import psycopg2.extensions

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 30_000
LOCK_TIMEOUT_MS = 10_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 60_000

Connection = psycopg2.extensions.connection


class Failure(Enum):
    """What to do about an error: wait and try the same again, look for the bad record, or crash."""

    BACKPRESSURE = "backpressure"
    DATA = "data"
    OTHER = "other"


_BACKPRESSURE_CLASSES = ("08", "53", "57P")
_BACKPRESSURE_STATES = frozenset(
    {
        "40001",  # serialization failure
        "40P01",  # deadlock
        "25006",  # read only: we still talk to a former primary
        "55P03",  # our own lock timeout: the database is slow, the records are not wrong
        "57014",  # our own statement timeout, likewise
    }
)
_DATA_CLASSES = ("22", "23", "54")


def connect(
    url: str, application_name: str, *, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
) -> Connection:
    """Open a connection on which nothing waits for ever; blocks at most CONNECT_TIMEOUT_S per address.

    Raises psycopg2.OperationalError when the database cannot be reached. A peer that vanished without
    closing is noticed within about 12 s.
    """
    return psycopg2.connect(
        url,
        application_name=application_name,
        connect_timeout=CONNECT_TIMEOUT_S,
        keepalives=1,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=10_000,
        options=f"-c statement_timeout={statement_timeout_ms} -c lock_timeout={LOCK_TIMEOUT_MS}"
        f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS} -c TimeZone=UTC",
    )


def classify(error: BaseException) -> Failure:
    """Sort an exception by SQLSTATE; a lost connection, which carries none, is back-pressure."""
    if not isinstance(error, psycopg2.Error):
        return Failure.OTHER
    state = error.pgcode
    if state is None:
        # A COPY whose connection breaks ends with a plain DatabaseError: there was no answer to make one of.
        lost = isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
        lost = lost or type(error) is psycopg2.DatabaseError
        return Failure.BACKPRESSURE if lost else Failure.OTHER
    if state in _BACKPRESSURE_STATES or state.startswith(_BACKPRESSURE_CLASSES):
        return Failure.BACKPRESSURE
    return Failure.DATA if state.startswith(_DATA_CLASSES) else Failure.OTHER
