"""Look-ups that hang hold threads of their owner, and never the last ones."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from services.runtime.lookups import Lookups

ALONE = 29
ADDRESSES = ["192.0.2.1"]


class NameServer:
    """Answers `good` at once, and all else when told to."""

    def __init__(self) -> None:
        self.answering = threading.Event()
        self.asked = threading.Semaphore(0)

    def ask(self, host: str, _port: int) -> Sequence[str]:
        self.asked.release()
        if host != "good":
            self.answering.wait(30)
        return ADDRESSES

    async def was_asked(self, times: int) -> None:
        for _ in range(times):
            assert await asyncio.to_thread(self.asked.acquire, timeout=10)


@asynccontextmanager
async def lookups() -> AsyncIterator[tuple[Lookups, NameServer]]:
    server = NameServer()
    made = Lookups(server.ask)
    try:
        yield made, server
    finally:
        server.answering.set()
        made.close()


def begun(made: Lookups, owner: str, count: int) -> list[asyncio.Task[Sequence[str]]]:
    return [asyncio.create_task(made.find(owner, "hangs", 443)) for _ in range(count)]


async def abandoned(tasks: list[asyncio.Task[Sequence[str]]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_look_ups_that_outlive_their_attempts_leave_threads_to_others() -> None:
    async with lookups() as (made, _server):
        for _ in range(3):  # three rounds of attempts that time out, as a schedule makes them
            tasks = begun(made, "greedy", 2 * ALONE)
            async with asyncio.timeout(10):
                assert await made.find("other", "good", 443) == ADDRESSES  # after them in the loop's queue
            await abandoned(tasks)
        for _ in range(ALONE):
            async with asyncio.timeout(10):
                assert await made.find("other", "good", 443) == ADDRESSES


async def test_thirty_owners_whose_look_ups_hang_leave_a_thread_to_the_next_one() -> None:
    async with lookups() as (made, _server):
        held = [task for owner in range(30) for task in begun(made, str(owner), ALONE)]
        async with asyncio.timeout(10):
            assert await made.find("other", "good", 443) == ADDRESSES
        await abandoned(held)


async def test_a_look_up_over_its_share_is_made_when_a_thread_comes_back() -> None:
    async with lookups() as (made, server):
        tasks = begun(made, "greedy", 2 * ALONE)
        await server.was_asked(ALONE)
        assert not any(task.done() for task in tasks)
        server.answering.set()
        async with asyncio.timeout(10):
            assert await asyncio.gather(*tasks) == [ADDRESSES] * (2 * ALONE)


async def test_a_name_without_an_address_is_an_oserror() -> None:
    def ask(_host: str, _port: int) -> Sequence[str]:
        raise OSError("no such name")

    made = Lookups(ask)
    with pytest.raises(OSError, match="no such name"):
        await made.find("", "missing", 443)
    made.close()
