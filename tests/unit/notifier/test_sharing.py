"""Who gets the slots: nobody all of them, everybody one, and nobody waits while there is room."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.core.sharing import Due, chosen, share

TENANTS = st.sampled_from("abcde")
DUE = st.lists(st.builds(Due, st.uuids().map(str), TENANTS, st.sampled_from(["x", "y", "z"])), max_size=60)


def due(tenant: str, count: int) -> list[Due]:
    return [Due(f"{tenant}{number}", tenant, f"{tenant}{number}") for number in range(count)]


def room(*owed: list[Due]) -> dict[str, int]:
    return {one.destination: 8 for found in owed for one in found}


@pytest.mark.parametrize(
    ("tenants", "expected"), [("a", [128]), ("ab", [85, 85]), ("abc", [64, 64, 64]), ("abcd", [51] * 4)]
)
def test_a_slot_is_free_for_whoever_comes(tenants: str, expected: list[int]) -> None:
    owed = [due(tenant, 500) for tenant in tenants]
    ids = chosen([one for found in owed for one in found], {}, room(*owed), 256)
    assert [sum(id.startswith(tenant) for id in ids) for tenant in tenants] == expected
    assert len(chosen(due("z", 1), Counter(id[0] for id in ids), room(due("z", 1)), 256)) == 1


@given(DUE, st.dictionaries(TENANTS, st.integers(0, 6)), st.integers(1, 30))
def test_every_choice_keeps_the_bounds_and_leaves_nobody_out(
    owed: list[Due], busy: dict[str, int], total: int
) -> None:
    free = {"x": 3, "y": 8, "z": 0}
    ids = {*chosen(owed, busy, free, total)}
    sent = [one for one in owed if one.delivery_id in ids]
    after = Counter(busy) + Counter(one.tenant for one in sent)
    places = Counter(one.destination for one in sent)
    assert all(places[name] <= most for name, most in free.items())
    assert not sent or after.total() <= total
    for one in owed:
        if one.delivery_id not in ids:
            full = places[one.destination] >= free[one.destination]
            assert full or after[one.tenant] >= share(after, one.tenant, total)
