"""Waiting for facts: the only place in the tests that sleeps.

A test names the fact it waits for and a deadline; it never sleeps for a time and hopes.
"""

import asyncio
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

POLL_S = 0.02
PROGRAM_S = 120.0
"""For a program that a test runs to its end, unless the test knows better."""


def until(predicate: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Ask `predicate` until its answer is true and return that answer.

    An exception of the predicate is the test's failure, at once. Raises AssertionError naming `what` and the
    last answer once `timeout_s` seconds have passed; the predicate is asked at least once.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}; last seen: {answer!r}")
        time.sleep(POLL_S)
    return answer


async def until_async(predicate: Callable[[], Awaitable[T | None]], timeout_s: float, what: str) -> T:
    """`until` for a coroutine function; other tasks run between its questions."""
    deadline = time.monotonic() + timeout_s
    while not (answer := await predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}; last seen: {answer!r}")
        await asyncio.sleep(POLL_S)
    return answer


def joined(thread: threading.Thread, timeout_s: float = 60) -> None:
    """Wait for the end of a thread. Raises AssertionError when it does not come."""
    thread.join(timeout_s)
    assert not thread.is_alive(), f"waited {timeout_s:g} s for the thread {thread.name} to end"


@contextmanager
def killed(process: "subprocess.Popen[Any]") -> Iterator["subprocess.Popen[Any]"]:
    """The process; at the end it is killed if it still runs, as nobody waits for one that hears nothing."""
    with process:
        try:
            yield process
        finally:
            process.kill()
