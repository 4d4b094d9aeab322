"""Waiting for an execution: what is committed wakes who watches it, once, through any outage."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from services.api import live
from services.api.live import Live
from services.runtime import telemetry
from tests.stack import Stack, transaction

pytestmark = pytest.mark.postgres

ONE, OTHER = "1" * 40, "2" * 40
SOON_S = 10.0


@pytest.fixture(scope="module")
def url(stack: Stack) -> str:
    return stack.fresh_database()


@pytest.fixture
async def watched(url: str) -> AsyncIterator[Live]:
    made = Live(url)
    yield made
    made.close()


def announce(url: str, ids: Iterable[str]) -> None:
    """What another process's projector does."""
    with transaction(url) as cursor:
        live.announce(cursor, ids)


async def test_wakes_whoever_watches_and_remembers_what_came_between(url: str, watched: Live) -> None:
    with watched.watch(ONE) as one, watched.watch(OTHER) as other:
        assert await one.wait(SOON_S), "listening has begun: look once more"
        assert await other.wait(SOON_S)
        announce(url, [ONE])
        assert await one.wait(SOON_S)
        announce(url, [ONE, OTHER])
        assert await other.wait(SOON_S)  # so `one` was told as well, while nobody waited
        assert await one.wait(0)
        assert not await one.wait(0)


@pytest.mark.parametrize("count", [live.PAYLOAD_IDS_MAX, live.PAYLOAD_IDS_MAX + 1])
async def test_a_batch_of_any_size_wakes(url: str, watched: Live, count: int) -> None:
    with watched.watch(ONE) as one:
        await one.wait(SOON_S)
        announce(url, [ONE, *(f"{n:08x}" + "a" * 32 for n in range(count - 1))])
        assert await one.wait(SOON_S)


async def test_a_lost_connection_is_made_again_and_everyone_looks(url: str, watched: Live) -> None:
    with watched.watch(ONE) as one:
        await one.wait(SOON_S)
        with transaction(url) as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'millstream-api-live'"
            )
        assert await one.wait(SOON_S)
        announce(url, [ONE])
        assert await one.wait(SOON_S)


async def test_a_drain_sends_everyone_home(watched: Live) -> None:
    with watched.watch(ONE) as one:
        await one.wait(SOON_S)
        waiting = asyncio.create_task(one.wait(60))
        watched.close()
        assert not await waiting
        assert not await one.wait(60)
    with watched.watch(ONE) as late:
        assert not await late.wait(60)


async def test_counts_who_waits(watched: Live) -> None:
    def waiting() -> float | None:
        return telemetry.REGISTRY.get_sample_value("live_watches")

    with watched.watch(ONE):
        assert waiting() == 1
    assert waiting() == 0
