"""The database's time for everything that is decided by a clock: links, ages of requests."""

import threading
from datetime import datetime

import psycopg2

from services.runtime.database import connect
from services.runtime.entropy import RESYNC_S, Clock, LocalClock, RemoteClock

RETRY_S = 1.0


class DatabaseClock:
    """Read by a thread every RESYNC_S; until its first reading this machine's time (nothing commits then)."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._clock: Clock = LocalClock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def now(self) -> datetime:
        """See Clock."""
        return self._clock.now()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            try:
                # A new clock each time: readers never see half of a reading.
                self._clock = RemoteClock(self._read)
                wait_s = RESYNC_S
            except psycopg2.Error:
                wait_s = RETRY_S

    def _read(self) -> datetime:
        connection = connect(self._url, "millstream-api-clock")
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT clock_timestamp()")
                row = cursor.fetchone()
        finally:
            connection.close()
        assert row is not None
        instant: datetime = row[0]
        return instant
