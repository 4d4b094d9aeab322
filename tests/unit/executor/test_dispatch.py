"""Whose turn it is at a desk: tenants in turns, classes that rise, and never more out than there is room."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.executor.core.dispatch import OVERDUE, RISE, Desk, Load, Waiter
from services.executor.core.pace import Pace

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TENANTS: dict[str, str] = {}


def desk_of(window: int) -> Desk:
    """A desk with so much room."""
    return Desk(Pace(window, window))


def wait(desk: Desk, key: str, tenant: str = "a", priority: int = 1, since: datetime = NOW) -> None:
    TENANTS[key] = tenant
    desk.keep(key, tenant, Load(0, Waiter(key, tenant, priority, since)))


def take(desk: Desk, now: datetime = NOW) -> list[str]:
    """Whose turn it is; they are out then."""
    chosen = list(desk.choose(now))
    for key in chosen:
        desk.keep(key, TENANTS[key], Load(1))
    return chosen


def one(desk: Desk, now: datetime = NOW) -> str:
    """The next one alone, which ends at once."""
    (key,) = take(desk, now)
    desk.keep(key, TENANTS[key], None)
    return key


def test_who_is_paused_and_goes_on_waits_since_the_same_instant() -> None:
    desk = desk_of(2)
    for _ in range(3):
        wait(desk, "paused")
        desk.keep("paused", "a", None)
    wait(desk, "paused")
    wait(desk, "later", since=NOW + SECOND)
    assert [one(desk), one(desk)] == ["paused", "later"]


def test_a_newcomer_goes_out_at_once_only_if_nobody_waits_for_the_same_room() -> None:
    desk = desk_of(3)
    desk.spent["a"] += 3
    assert not desk.has_room("a") and not desk.has_room("b")
    desk.begin()
    assert desk.has_room("a"), "the batch was thrown away"
    desk.keep("x", "a", Load(1))
    wait(desk, "y", "a")
    assert desk.free == 2 and not desk.has_room("a") and desk.has_room("b")
    wait(desk, "z", "b")
    assert not desk.has_room("b")


def test_the_last_room_is_for_tenants_that_have_little_out() -> None:
    desk = desk_of(8)
    for number in range(40):
        wait(desk, f"a{number}", "a")
    assert len(take(desk)) == 6
    assert take(desk) == [] and not desk.has_room("a")
    assert desk.has_room("b")
    for number in range(3):
        wait(desk, f"b{number}", "b")
    assert take(desk) == ["b0", "b1"], "its third one waits like any other"
    assert desk.free == 0


def test_tenants_take_turns_however_many_wait_of_one() -> None:
    desk = desk_of(1)
    for number in range(1000):
        wait(desk, f"a{number:03}", "a", since=NOW + number * SECOND)
    for number in range(3):
        wait(desk, f"b{number}", "b", since=NOW + timedelta(hours=1))
    told = [one(desk, NOW + timedelta(hours=1)) for _ in range(7)]
    assert told == ["a000", "b0", "a001", "b1", "a002", "b2", "a003"]


def test_the_higher_class_goes_first_and_the_older_of_a_class() -> None:
    desk = desk_of(1)
    for key, priority, age in (("n2", 1, 2), ("l", 0, 9), ("h", 2, 0), ("n1", 1, 5)):
        wait(desk, key, priority=priority, since=NOW - age * SECOND)
    assert [one(desk) for _ in range(4)] == ["h", "n1", "n2", "l"]


def test_a_class_rises_with_the_wait_and_high_has_nowhere_to_rise_to() -> None:
    low, high = Waiter("l", "a", 0, NOW), Waiter("h", "a", 2, NOW)
    assert [low.rank(NOW + count * RISE) for count in range(5)] == [0, 1, 2, OVERDUE, OVERDUE]
    assert high.rank(NOW + 10 * RISE) == 2


def test_low_starts_within_ten_minutes_under_endless_high() -> None:
    """Highs come at twice the pace at which there is room: their line only grows."""
    desk, pace = desk_of(1), timedelta(seconds=5)
    started: dict[str, datetime] = {}
    lows = {f"low{number}": NOW + number * timedelta(minutes=7) for number in range(12)}
    now = NOW
    for turn in range(2000):
        now = NOW + turn * pace
        for number in range(2):
            wait(desk, f"high{turn}.{number}", priority=2, since=now)
        for key, since in lows.items():
            if now <= since < now + pace:
                wait(desk, key, priority=0, since=since)
        started.setdefault(one(desk, now), now)
    waits = [started[key] - since for key, since in lows.items()]
    assert max(waits) < timedelta(minutes=10)
    assert max(waits) > timedelta(minutes=7), "high goes first until then"


def test_a_flood_of_overdue_ones_leaves_every_second_turn_to_high() -> None:
    desk = desk_of(1)
    for number in range(100):
        wait(desk, f"low{number}", priority=0, since=NOW - timedelta(hours=1))
    for number in range(10):
        wait(desk, f"high{number}", priority=2)
    assert Counter(one(desk)[:3] for _ in range(20)) == {"low": 10, "hig": 10}


def test_who_was_chosen_and_did_not_go_is_chosen_again() -> None:
    desk = desk_of(2)
    for key, tenant in zip("xyz", "abc", strict=True):
        wait(desk, key, tenant)
    first = set(desk.choose(NOW))
    assert len(first) == 2
    assert set(desk.choose(NOW)) <= set("xyz"), "the batch came to nothing"
    told = [*take(desk)]
    for key in told:
        desk.keep(key, TENANTS[key], None)
    assert sorted([*told, *take(desk)]) == ["x", "y", "z"]


def test_who_no_longer_waits_is_passed_over() -> None:
    desk = desk_of(2)
    for key, tenant in zip("xyz", "abc", strict=True):
        wait(desk, key, tenant)
    desk.choose(NOW)
    desk.keep("x", "a", None)
    desk.keep("y", "b", None)
    assert take(desk) == ["z"]


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["wait", "take", "choose", "end", "cancel"]),
        st.integers(0, 30),
        st.integers(0, 3),
        st.integers(0, 2),
    ),
    max_size=200,
)


@given(window=st.integers(1, 5), moves=MOVES)
def test_never_more_are_out_than_there_is_room_and_nobody_is_lost(
    window: int, moves: list[tuple[str, int, int, int]]
) -> None:
    desk, out, waiting, now = desk_of(window), set[str](), set[str](), NOW
    for verb, number, tenant, priority in moves:
        key, now = f"k{number}", now + 40 * SECOND
        match verb:
            case "wait" if key not in out | waiting:
                wait(desk, key, f"t{tenant}", priority, now)
                waiting.add(key)
            case "take":
                chosen = take(desk, now)
                assert set(chosen) <= waiting and len(chosen) <= window - len(out)
                assert chosen or not waiting or window - len(out) - len(chosen) <= desk.reserve
                out |= set(chosen)
                waiting -= set(chosen)
            case "choose":
                desk.choose(now)
            case "end" if key in out:
                desk.keep(key, TENANTS[key], None)
                out.discard(key)
            case "cancel" if key in waiting:
                desk.keep(key, TENANTS[key], None)
                waiting.discard(key)
        assert desk.out == len(out) <= window
    for key in out:
        desk.keep(key, TENANTS[key], None)
    while waiting:
        left = take(desk, now)
        assert left
        waiting -= set(left)
        for key in left:
            desk.keep(key, TENANTS[key], None)


@given(tenants=st.integers(2, 6), data=st.data())
def test_nobody_waits_longer_than_one_turn_of_each_other_tenant(tenants: int, data: st.DataObject) -> None:
    desk = desk_of(1)
    for tenant in range(tenants):
        for number in range(data.draw(st.integers(5, 30))):
            wait(desk, f"{tenant}.{number:03}", f"t{tenant}", data.draw(st.integers(0, 2)))
    told = [one(desk)[0] for _ in range(5 * tenants)]
    assert set(Counter(told).values()) == {5}


def test_a_tenant_with_its_share_out_leaves_the_room_to_others() -> None:
    """Its calls may hang for long, and nobody else's wait for them."""
    desk = Desk(Pace(8, 8), share=2)
    for number in range(5):
        wait(desk, f"a{number}", "a")
    assert take(desk) == ["a0", "a1"]
    assert not desk.has_room("a") and desk.has_room("b")
    wait(desk, "b0", "b")
    assert take(desk) == ["b0"]
    desk.keep("a0", "a", None)
    assert take(desk) == ["a2"]
