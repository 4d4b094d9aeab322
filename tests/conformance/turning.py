"""Members of the loop's group as the tests turn them, and what they wait for."""

import threading
from collections.abc import Callable
from typing import Any

from services.runtime.processor.loop import Limits, Processor
from tests.conformance.counting import Count, Counting
from tests.conformance.faulty import FaultyLog, FaultyStore
from tests.conformance.worlds import PARTITIONS, World, answers
from tests.waiting import until

QUICK = Limits(idle_s=0.02, topic_check_s=0.5)
KEYS = [f"k{number}" for number in range(40)]
NEVER = threading.Event()


class Member:
    """One process of the group, turned by the test."""

    def __init__(self, world: World, limits: Limits = QUICK, handler: Counting | None = None) -> None:
        """`handler` is the world's unless given: one that remembers belongs to one member."""
        handler = handler or world.handler
        self.store, self.log = FaultyStore(world.store()), FaultyLog(world.log())
        self.processor: Processor[Count] = Processor(
            handler, self.store, self.log, world.letters(), (handler.output,), limits
        )
        self.log.join(handler.inputs)

    def turn(self) -> None:
        self.processor.turn(NEVER)

    def leave(self) -> None:
        self.log.close()

    @property
    def indexes(self) -> set[int]:
        return set(self.processor._owner.parts)

    def owns_all(self) -> bool:
        return len(self.indexes) == PARTITIONS


def turned(*members: Member, done: Callable[[], Any], what: str, timeout_s: float = 40) -> Any:
    """Turn the members until something is so."""

    def step() -> Any:
        for member in members:
            member.turn()
        return done()

    return until(step, timeout_s, what)


def put_all(world: World, topic: str, text: str) -> None:
    for key in KEYS:
        world.put(topic, key, text.encode())


def settled(world: World, expected: set[tuple[str, str]]) -> Callable[[], bool]:
    return lambda: expected <= set(answers(world))


def answered(text: str) -> set[tuple[str, str]]:
    return {(key, text) for key in KEYS}
