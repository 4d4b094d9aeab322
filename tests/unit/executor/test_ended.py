"""How many outcomes a worker remembers."""

from services.contracts.envelope import Outgoing
from services.executor.work.ended import ENTRY_BYTES, Ended


def outcome(size: int) -> Outgoing:
    return Outgoing("step.completed", b"key", b"x" * size)


def test_the_newest_outcomes_are_remembered_within_the_bytes() -> None:
    ended = Ended(3 * (ENTRY_BYTES + 100))
    for name in ("a", "b", "c"):
        ended.add(name, outcome(100))
    ended.add("a", outcome(100))  # its attempt came again, on another way
    ended.add("d", outcome(100))
    assert [ended.get(name) is not None for name in ("a", "b", "c", "d")] == [True, False, True, True]
    ended.add("large", outcome(10_000))
    assert [ended.get(name) for name in ("a", "c", "d", "large")] == [None] * 4
