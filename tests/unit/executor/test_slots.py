"""Slots of calls: who waits, who is next, and that none is lost."""

import asyncio
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st

from services.executor.work.slots import Bounds, Slots


async def turn() -> None:
    """Everything else of the loop that is ready runs once."""
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(passed.set_result, None)
    await passed


class Hall:
    """Callers by name; who is in, in the order of entering."""

    def __init__(self, **bounds: int) -> None:
        self.slots = Slots(Bounds(**bounds))
        self.inside: list[str] = []
        self._leaving: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, tenant: str, destination: str) -> None:
        self._leaving[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._call(name, tenant, destination))
        await self._settle()

    async def leave(self, name: str) -> None:
        self._leaving[name].set()
        await self._settle()

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await self._settle()

    async def _call(self, name: str, tenant: str, destination: str) -> None:
        async with self.slots.held(tenant, destination):
            self.inside.append(name)
            try:
                await self._leaving[name].wait()
            finally:
                self.inside.remove(name)

    async def _settle(self) -> None:
        for _ in range(5):
            await turn()


async def test_who_waits_for_a_destination_holds_up_nobody_else() -> None:
    hall = Hall(destination=1)
    await hall.come("first", "acme", "slow")
    await hall.come("second", "acme", "slow")
    await hall.come("third", "acme", "quick")
    assert hall.inside == ["first", "third"]
    await hall.leave("first")
    assert hall.inside == ["third", "second"]


async def test_a_tenant_has_its_bound_and_others_theirs() -> None:
    hall = Hall(tenant=1, worker=2)
    for name, tenant in (("a1", "acme"), ("a2", "acme"), ("b1", "emca"), ("c1", "mace")):
        await hall.come(name, tenant, name)
    assert hall.inside == ["a1", "b1"]
    await hall.leave("b1")
    assert hall.inside == ["a1", "c1"]


async def test_tenants_take_turns() -> None:
    hall = Hall(worker=1)
    await hall.come("running", "acme", "x")
    for name, tenant in (("a1", "acme"), ("a2", "acme"), ("a3", "acme"), ("b1", "emca"), ("b2", "emca")):
        await hall.come(name, tenant, "x")
    order = []
    for _ in range(5):
        await hall.leave(hall.inside[0])
        order += hall.inside
    assert order == ["a1", "b1", "a2", "b2", "a3"]


async def test_who_gives_up_leaves_no_gap() -> None:
    hall = Hall(worker=1)
    for name in ("first", "second", "third"):
        await hall.come(name, "acme", "x")
    await hall.give_up("second")
    await hall.give_up("first")
    assert hall.inside == ["third"]


async def test_who_gives_up_in_the_moment_of_its_turn_passes_it_on() -> None:
    slots = Slots(Bounds(worker=1))
    entered: list[str] = []

    async def call(name: str) -> None:
        async with slots.held("acme", "x"):
            entered.append(name)

    async with AsyncExitStack() as first:
        await first.enter_async_context(slots.held("acme", "x"))
        second, third = (asyncio.create_task(call(name)) for name in ("second", "third"))
        await turn()
        await first.aclose()
        second.cancel()
        await asyncio.wait({second, third})
    assert entered == ["third"]


CALLS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.booleans()), max_size=30)


@given(CALLS)
def test_the_bounds_hold_and_everybody_has_a_turn(calls: list[tuple[str, str, bool]]) -> None:
    async def run() -> None:
        slots = Slots(Bounds(worker=4, destination=2, tenant=3))
        inside: list[tuple[str, str]] = []
        had_a_turn = 0

        async def call(tenant: str, destination: str, gives_up: bool) -> None:
            nonlocal had_a_turn
            async with slots.held(tenant, destination):
                inside.append((tenant, destination))
                assert len(inside) <= 4
                assert sum(one == tenant for one, _ in inside) <= 3
                assert sum(one == destination for _, one in inside) <= 2
                try:
                    await turn()
                finally:
                    inside.remove((tenant, destination))
                had_a_turn += not gives_up

        tasks = [(asyncio.create_task(call(*one)), one[2]) for one in calls]
        await turn()
        for task, gives_up in tasks:
            if gives_up:
                task.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*(task for task, gives_up in tasks if not gives_up))
        assert had_a_turn == sum(not gives_up for *_, gives_up in calls)

    asyncio.run(run())
