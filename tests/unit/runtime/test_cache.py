"""How much memory the states of a loop may take."""

from services.contracts.envelope import Outgoing
from services.runtime.entropy import LocalClock
from services.runtime.memory.store import MemoryStore, Tables
from services.runtime.processor.batch import Batch, Turn
from services.runtime.processor.cache import ENTRY_BYTES, IN_MEMORY, Cache
from services.runtime.processor.types import Input, Routed
from tests.conformance.counting import Count, Counting

HANDLER = Counting(("in.a",), "out")
CLOCK = LocalClock()


def turn(key: str, text: str, part: int = 0) -> Turn[Count]:
    """A batch of one record."""
    batch = Batch(HANDLER, {key: None}, CLOCK.now())
    batch.feed(Input("in.a", part, 0, key.encode(), text.encode()), Routed(key, text))
    assert [type(record) for record in batch.turn.parts[part].out] == [Outgoing]
    return batch.turn


def known(cache: Cache[Count], *keys: str) -> set[str]:
    """Which of the keys it needs no store for."""
    found = cache.states([Routed(key, "") for key in keys], ())
    return {key for key, state in found.items() if state is not None}


def test_states_are_bounded_by_their_bytes_and_the_oldest_go_first() -> None:
    cache = Cache(HANDLER, MemoryStore(Tables(CLOCK)), 3 * ENTRY_BYTES + IN_MEMORY * 1500)
    for key in ("a", "b", "c"):
        cache.update(turn(key, "t" * 300))
    assert known(cache, "a", "b", "c") == {"a", "b", "c"}
    cache.update(turn("large", "t" * 1000))
    assert known(cache, "a", "b", "c", "large") == {"c", "large"}
    cache.update(turn("larger than all", "t" * 10_000))
    assert known(cache, "c", "large", "larger than all") == set() and cache.bytes == 0


def test_a_state_that_changes_counts_once() -> None:
    cache = Cache(HANDLER, MemoryStore(Tables(CLOCK)), 1 << 20)
    for _ in range(50):
        cache.update(turn("a", "t" * 300))
    assert cache.bytes < 2 * ENTRY_BYTES + IN_MEMORY * 400


def test_states_of_indexes_that_changed_hands_are_dropped() -> None:
    cache = Cache(HANDLER, MemoryStore(Tables(CLOCK)), 1 << 20)
    cache.update(turn("a", "t", 0))
    cache.update(turn("b", "t", 1))
    cache.retain({1})
    assert known(cache, "a", "b") == {"b"}
    cache.retain(())
    assert cache.bytes == 0
