"""PostgreSQL for the asyncio side: short transactions on a few threads, each with its own connection.

Nothing waits longer than the stated limit. A database that is away shows as DatabaseAway at once or after
that limit, and the next call tries again by itself.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg2

from services.runtime.database import Connection, Failure, classify, connect

T = TypeVar("T")
Work = Callable[[Any], T]

WORKERS = 8
WITHIN_S = 5.0
STATEMENT_TIMEOUT_MS = 4_000


class DatabaseAway(Exception):
    """The database did not answer in time; a write may or may not have happened."""


class Pool:
    """Runs functions that take a cursor."""

    def __init__(self, url: str) -> None:
        """Connects when first used."""
        self._url = url
        self._threads = ThreadPoolExecutor(WORKERS, "database")
        self._local = threading.local()

    async def read(self, work: Work[T]) -> T:
        """The result of statements that change nothing, each seeing its own snapshot. Raises DatabaseAway."""
        return await self._run(work, write=False)

    async def write(self, work: Work[T]) -> T:
        """The result of one transaction, committed. Raises DatabaseAway and what `work` raises."""
        return await self._run(work, write=True)

    def close(self) -> None:
        """Let running work end; connections close with the process."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Work[T], *, write: bool) -> T:
        deadline = time.monotonic() + WITHIN_S
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._call, work, write, deadline)
        try:
            return await asyncio.wait_for(future, WITHIN_S)
        except TimeoutError:
            raise DatabaseAway("the database does not answer") from None

    def _call(self, work: Work[T], write: bool, deadline: float) -> T:
        """Once more on a new connection when the kept one proves dead before anything was committed."""
        if time.monotonic() >= deadline:  # the caller has gone; spare a database that is slow already
            raise DatabaseAway("the database is too slow")
        kept = self._kept()
        if kept is not None:
            try:
                return self._on(kept, work, write)
            except _LostBeforeCommit:
                pass
        try:
            fresh = self._local.connection = connect(
                self._url, "millstream-api", statement_timeout_ms=STATEMENT_TIMEOUT_MS
            )
            return self._on(fresh, work, write)
        except (_LostBeforeCommit, psycopg2.OperationalError) as error:
            raise DatabaseAway("the database is away") from error

    def _kept(self) -> Connection | None:
        connection: Connection | None = getattr(self._local, "connection", None)
        return connection if connection is not None and not connection.closed else None

    def _on(self, connection: Connection, work: Work[T], write: bool) -> T:
        committing = False
        try:
            connection.autocommit = not write
            with connection.cursor() as cursor:
                result = work(cursor)
            if write:
                committing = True
                connection.commit()
            return result
        except psycopg2.Error as error:
            connection.close()
            if classify(error) is not Failure.BACKPRESSURE:
                raise
            if committing:
                raise DatabaseAway("the database went away during the commit") from error
            raise _LostBeforeCommit from error
        except BaseException:
            connection.rollback()
            raise


class _LostBeforeCommit(Exception):
    """Nothing was changed."""
