"""Definitions are read and checked by a process of their own (checker.py), in a bounded queue."""

import asyncio
import select
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from services.api import checker
from services.api.core.submission import Submission
from services.api.problems import unavailable
from services.contracts.commands import JobRequested
from services.contracts.errors import FieldError
from services.jobs import documents, pipeline
from services.jobs.refused import Refused

AT_ONCE_BYTES = 4 * 1024
"""Of JSON or YAML; what is smaller takes a few milliseconds, and is done where it comes in."""
WAITING_MAX = 16
WITHIN_S = 10.0
_BUSY = "too many definitions are being checked"


class Checking:
    """The process that checks; it is started when it is first needed, and again after it has died."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "checking")
        self._child: subprocess.Popen[bytes] | None = None
        self._writing = asyncio.Semaphore(1)
        self._waiting = 0
        self._lock = threading.RLock()

    async def read(self, text: bytes, is_json: bool) -> Any:
        """The value of a JSON or YAML text. Raises Malformed, Problem (503)."""
        if len(text) <= AT_ONCE_BYTES:
            return checker.read(text, is_json)
        return await self._ask("read", text, is_json)

    async def plan(self, record: JobRequested, asked: Submission) -> checker.Planned:
        """The request with what its pipeline adds, and its steps. Raises Refused, Problem (503)."""
        assert record.definition is not None, "a service request carries its pipeline"
        if len(msgspec.json.encode(record.definition.body)) <= AT_ONCE_BYTES:
            return checker.plan(record, asked.values, asked.priority)
        found = await self._ask("plan", record, asked.values, asked.priority)
        planned: checker.Planned = msgspec.convert(found, checker.Planned)
        return planned

    def check(self, body: Any) -> None:
        """Raise Refused for a pipeline with faults, from a thread that may wait. Raises Problem (503)."""
        if len(msgspec.json.encode(body)) <= AT_ONCE_BYTES:
            pipeline.parse(body)
        else:
            try:
                self._threads.submit(self._call, ("check", body)).result(WITHIN_S)
            except TimeoutError:
                raise unavailable(_BUSY) from None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Definitions are stored one after the other: no more threads of the database wait for a check.

        Raises Problem (503).
        """
        if self._waiting >= WAITING_MAX:
            raise unavailable(_BUSY)
        self._waiting += 1
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._writing.acquire()
        except TimeoutError:
            raise unavailable(_BUSY) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._writing.release()

    def close(self) -> None:
        """End the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._end()

    async def _ask(self, *request: Any) -> Any:
        if self._waiting >= WAITING_MAX:
            raise unavailable(_BUSY)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, request)
        finally:
            self._waiting -= 1

    def _call(self, request: tuple[Any, ...]) -> Any:
        said = self._said(msgspec.msgpack.encode(request))
        if said is None:
            self._end()
            raise unavailable("the check of definitions was interrupted")
        how, value, errors = msgspec.msgpack.decode(said)
        faults = tuple(msgspec.convert(one, FieldError) for one in errors)
        if how == "malformed":
            raise documents.Malformed(value, faults)
        if how == "refused":
            raise Refused(faults)
        return value

    def _said(self, request: bytes) -> bytes | None:
        """What the process answers; None when it has died or takes too long."""
        child = self._started()
        assert child.stdin is not None and child.stdout is not None, "both are pipes"
        try:
            checker.write_frame(child.stdin, request)
            ready, _, _ = select.select([child.stdout], [], [], WITHIN_S)
            return checker.read_frame(child.stdout) if ready else None
        except (OSError, ValueError):
            return None

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._child is not None and self._child.poll() is not None:
                self._end()
            if self._child is None:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", checker.__name__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
            return self._child

    def _end(self) -> None:
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child.communicate()  # closes its pipes
            self._child = None
