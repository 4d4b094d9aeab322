"""Which rows of a serial topic may leave the outbox after a partly failed batch."""

from services.contracts.envelope import Outgoing
from services.runtime.outbox import Claimed, pack_head, prefix_per_key, unpack


def rows(*keys: str) -> list[Claimed]:
    return [Claimed(id, "definition.state", [(key.encode(), b"", ())]) for id, key in enumerate(keys)]


def test_what_is_packed_is_unpacked() -> None:
    records = [
        Outgoing("t", b"k", b"value", (("h", b"1"), ("\u00e9", b""))),
        Outgoing("t", None, b"", ()),
        Outgoing("t", b"", b"\0" * 70_000, (("h", b"\xff"),)),
    ]
    packed = b"".join(pack_head(record) + (record.value or b"") for record in records)
    assert unpack(packed) == [(r.key, r.value, r.headers) for r in records]
    assert unpack(b"") == []


def test_nothing_leaves_behind_a_record_of_its_key_that_failed() -> None:
    claimed = rows("a", "b", "a", "a", "b")
    assert [row.id for row in prefix_per_key(claimed, {0, 1, 3, 4})] == [0, 1, 4]
    assert prefix_per_key(claimed, {2, 3}) == []
    assert [row.id for row in prefix_per_key(claimed, {0, 1, 2, 3, 4})] == [0, 1, 2, 3, 4]
