"""Which rows of a serial topic may leave the outbox after a partly failed batch."""

from services.contracts.envelope import Outgoing
from services.runtime.outbox import Claimed, prefix_per_key


def rows(*keys: str) -> list[Claimed]:
    return [Claimed(id, Outgoing("definition.state", key.encode(), b"")) for id, key in enumerate(keys)]


def test_nothing_leaves_behind_a_record_of_its_key_that_failed() -> None:
    claimed = rows("a", "b", "a", "a", "b")
    assert [row.id for row in prefix_per_key(claimed, {0, 1, 3, 4})] == [0, 1, 4]
    assert prefix_per_key(claimed, {2, 3}) == []
    assert [row.id for row in prefix_per_key(claimed, {0, 1, 2, 3, 4})] == [0, 1, 2, 3, 4]
