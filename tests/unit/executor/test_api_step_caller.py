"""The caller: one loop for all threads, begun by the first call."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for

import pytest

from services.runtime.exchange import Refused, Response
from tests import exporting
from tests.calls import LOCAL
from tests.receiver import hang, receiving
from tests.waiting import PROGRAM_S, until

CODE = """
import sys
import services.executor.worker
from services.executor.steps import CALLS
assert "API" in CALLS
loaded = {"aiohttp", "yarl", "services.runtime.http"} & sys.modules.keys()
assert not loaded, loaded
"""


def test_a_worker_that_calls_nobody_loads_no_http_library() -> None:
    command = [sys.executable, "-c", CODE]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROGRAM_S)
    assert ended.returncode == 0, ended.stderr


async def test_calls_of_many_threads_share_one_loop_and_end_with_it() -> None:
    async with receiving() as receiver:
        receiver.answers(hang)
        caller = exporting.outbound(LOCAL).caller

        def begin() -> Future[Response]:
            return caller.begin(
                caller.send("POST", receiver.url(), {}, b"", owner="", timeout_s=60, kept_bytes=10)
            )

        calls = await asyncio.gather(*(asyncio.to_thread(begin) for _ in range(20)))
        assert [thread.name for thread in threading.enumerate()].count("calls") == 1
        calls[0].cancel()
        await asyncio.to_thread(caller.close)
        done, pending = wait_for(calls, 2)
        assert not pending
        for call in done:
            with pytest.raises(CancelledError):
                call.result(0)
        assert "calls" not in [thread.name for thread in threading.enumerate()]


def test_a_closed_caller_begins_anew() -> None:
    caller = exporting.outbound().caller
    caller.close()
    for _ in range(2):
        call = caller.begin(
            caller.send("GET", "http://127.0.0.1/", {}, b"", owner="", timeout_s=5, kept_bytes=10)
        )
        with pytest.raises(Refused):
            call.result(5)
        caller.close()
    until(lambda: "calls" not in [thread.name for thread in threading.enumerate()], 5, "an ended thread")
