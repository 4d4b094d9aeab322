"""The loop's promises to a handler that keeps a memory beside its states, on every body of its ports."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from services.runtime.processor.loop import Limits
from tests.conformance.counting import Count
from tests.conformance.faulty import Killed
from tests.conformance.remembering import Remembering
from tests.conformance.turning import KEYS, QUICK, Member, answered, put_all, settled, turned
from tests.conformance.worlds import PARTITIONS, SEAT, World, answers, state_of

HUNGRY = KEYS[::2]
"""Of the keys, those whose state gets a timer; the others are in no memory."""


@dataclass(frozen=True, slots=True)
class Rememberer:
    """A member with a memory of its own."""

    world: World
    handler: Remembering
    member: Member

    @classmethod
    def of(cls, world: World, limits: Limits = QUICK) -> "Rememberer":
        plain = world.handler
        handler = Remembering(plain.inputs, plain.output, plain.name)
        return cls(world, handler, Member(world, limits, handler))

    def is_true(self) -> bool:
        """Its memory holds its own indexes, and of each the live states as they are stored."""
        live: dict[int, dict[str, Count | None]] = {}
        for row in [*self.world.store().live(sorted(self.member.indexes))]:
            live.setdefault(row.part, {})[row.key] = state_of(self.world, row.key)
        return {index: states for index, states in self.handler.live.items() if states} == live

    def names_any(self) -> bool:
        """Whether it wants any state to go on."""
        return bool(self.handler.wanted(self.world.store().now()))


def feed(world: World) -> None:
    """States with a timer and states without."""
    put_all(world, "in.a", "one")
    for key in HUNGRY:
        world.put("in.a", key, b"hungry")


def served(world: World) -> Callable[[], bool]:
    return settled(world, answered("one") | {(key, "served") for key in HUNGRY})


def check_served_once(world: World) -> None:
    for key in KEYS:
        state = state_of(world, key)
        assert state is not None
        assert state.seen == (("one", "hungry", "served") if key in HUNGRY else ("one",))
    assert world.row_texts().count("served") == len(HUNGRY)


def test_the_memory_is_what_was_committed(world: World) -> None:
    one = Rememberer.of(world)
    feed(world)
    turned(one.member, done=served(world), what="all answers")
    assert one.is_true()
    assert sum(len(states) for states in one.handler.live.values()) == len(HUNGRY)
    world.put("in.b", HUNGRY[0], b"boom")  # takes the timer away
    turned(one.member, done=settled(world, {(HUNGRY[0], "failed")}), what="the end of a state's timer")
    assert one.is_true()
    one.member.leave()


def test_an_adopted_index_brings_its_live_states_and_one_that_is_gone_takes_them_along(world: World) -> None:
    first = Rememberer.of(world)
    feed(world)
    turned(first.member, done=served(world), what="all answers")
    second = Rememberer.of(world)

    def shared() -> bool:
        first_, second_ = first.member.indexes, second.member.indexes
        return bool(first_ and second_) and len(first_ | second_) == PARTITIONS

    turned(first.member, second.member, done=shared, what="both to own indexes")
    assert first.is_true() and second.is_true()
    assert any(second.handler.live.values()), "the heir knows of nobody"
    first.member.leave()
    turned(second.member, done=second.member.owns_all, what="the one that is left to own all")
    assert second.is_true()
    check_served_once(world)
    second.member.leave()


def test_of_indexes_that_stay_ours_nothing_is_read_again(world: World) -> None:
    first = Rememberer.of(world)
    feed(world)
    turned(first.member, done=served(world), what="all answers")
    second = Rememberer.of(world)

    def shared() -> bool:
        first_, second_ = first.member.indexes, second.member.indexes
        return bool(first_ and second_) and len(first_ | second_) == PARTITIONS

    before = first.handler.told
    turned(first.member, second.member, done=shared, what="both to own indexes")
    assert first.handler.told == before, "states were read of indexes that were its own before"
    assert second.handler.told == sum(len(states) for states in second.handler.live.values()) > 0
    assert first.is_true() and second.is_true()
    first.member.leave()
    second.member.leave()


def test_of_an_index_that_was_anothers_in_between_all_is_read_again(world: World) -> None:
    one = Rememberer.of(world)
    feed(world)
    turned(one.member, done=served(world), what="all answers")
    before = one.handler.told
    world.store().acquire(range(PARTITIONS))  # another's whole term, while this one was frozen
    world.put("in.b", "k1", b"two")
    turned(one.member, done=settled(world, {("k1", "two")}), what="the indexes to be taken up again")
    assert one.handler.told >= before + len(HUNGRY)
    assert one.is_true()
    one.member.leave()


def test_a_fenced_index_is_dropped_from_the_memory_and_nothing_of_it_goes_on(world: World) -> None:
    one = Rememberer.of(world)
    turned(one.member, done=one.member.owns_all, what="all indexes")
    successor = world.store()
    successor.acquire([0])  # as a new owner would, while this one was frozen
    feed(world)
    turned(one.member, done=lambda: 0 not in one.member.indexes, what="the fenced index to be dropped")
    assert one.is_true()
    assert successor.numbers([0])[0] == (2, 0)
    turned(one.member, done=served(world), what="the index to be taken up again")
    assert one.is_true()
    check_served_once(world)
    one.member.leave()


def test_the_memory_is_made_anew_when_taking_indexes_up_fails_half_way(world: World) -> None:
    one = Rememberer.of(world)
    feed(world)
    turned(one.member, done=served(world), what="all answers")
    world.recreate("in.a")
    world.put("in.a", "late", b"hungry")
    one.member.store.fail_to_acquire = 2
    turned(one.member, done=settled(world, {("late", "served")}), what="answers from the new log")
    assert one.member.store.fail_to_acquire == 0
    assert one.is_true()
    one.member.leave()


@pytest.mark.parametrize("text", [SEAT, "nul"])
def test_what_a_batch_counts_is_forgotten_when_it_is_decided_again(world: World, text: str) -> None:
    one = Rememberer.of(world)
    world.put("in.a", "k5", text.encode())
    world.put("in.b", "k7", text.encode())
    feed(world)
    turned(one.member, done=served(world), what="all answers")
    assert (one.handler.full > 0) if text == SEAT else world.records("in.a.dlq"), "nothing was decided again"
    for counted, changed in one.handler.batches:
        assert counted == changed
    assert one.is_true()
    one.member.leave()


def test_a_contended_batch_leaves_nothing_and_is_decided_again_by_a_handler_that_was_told(
    world: World,
) -> None:
    one = Rememberer.of(world)
    world.put("in.a", "first", SEAT.encode())
    turned(one.member, done=settled(world, {("first", SEAT)}), what="the seat to be taken")
    told_before = one.handler.full
    put_all(world, "in.a", "one")
    world.put("in.a", "k1", SEAT.encode())
    expected = {("first", SEAT), ("k1", "full")} | answered("one")
    turned(one.member, done=settled(world, expected), what="all answers")
    assert sorted(answers(world)) == sorted(expected)
    assert sorted(world.row_texts()) == sorted(text for _, text in expected)
    state = state_of(world, "k1")
    assert state is not None
    assert state.seen == ("one", "full")
    assert (told_before, one.handler.full) == (0, 1)
    one.member.leave()


def test_a_batch_that_is_contended_for_ever_pauses_the_loop_and_goes_on_when_it_can(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Rememberer.of(world)
    world.put("in.a", "first", SEAT.encode())
    turned(one.member, done=settled(world, {("first", SEAT)}), what="the seat to be taken")
    with monkeypatch.context() as deaf:
        deaf.setattr(one.handler, "contended", lambda contended: None)
        world.put("in.a", "k1", SEAT.encode())
        turned(one.member, done=lambda: "refused" in one.member.processor.ready()[1], what="a pause")
    turned(one.member, done=settled(world, {("k1", "full")}), what="an answer")
    one.member.leave()


def test_a_wanted_state_goes_on_before_its_timer_and_before_the_inputs_were_read(world: World) -> None:
    one = Rememberer.of(world, Limits(records=1, idle_s=0.02))
    world.put("in.a", "k1", b"hungry")
    turned(one.member, done=lambda: state_of(world, "k1"), what="it to be hungry")
    texts = [f"t{number}" for number in range(50)]
    for text in texts:
        world.put("in.b", "k1", text.encode())
    turned(one.member, done=settled(world, {("k1", texts[-1])}), what="all answers")
    state = state_of(world, "k1")
    assert state is not None
    assert state.seen[0] == "hungry"
    assert state.seen.index("served") <= 2, "it had to wait for more than the batch it came with"
    assert [text for _, text in answers(world)] == [*state.seen], "it was decided on another state"
    one.member.leave()


def test_a_wanted_state_that_is_never_due_is_served_once(world: World) -> None:
    one = Rememberer.of(world)
    feed(world)
    turned(one.member, done=served(world), what="all answers")
    world.put("in.b", "last", b"two")
    turned(one.member, done=settled(world, {("last", "two")}), what="more turns")
    assert answers(world).count((HUNGRY[0], "served")) == 1
    check_served_once(world)
    one.member.leave()


@pytest.mark.parametrize("point", ["before_commit", "lost_answer", "after_commit"])
def test_a_wanted_state_is_named_again_until_its_commit_whatever_happens_to_it(
    world: World, point: str
) -> None:
    one = Rememberer.of(world)
    world.put("in.a", "k1", b"hungry")
    turned(one.member, done=one.names_any, what="it to be hungry")
    if point == "lost_answer":
        one.member.store.lose_answer = True
    else:
        setattr(one.member.store, f"die_{point}", True)
        with pytest.raises(Killed):
            one.member.turn()
        one.member.leave()
        one = Rememberer.of(world)
    turned(one.member, done=settled(world, {("k1", "served")}), what="it to be served")
    assert one.is_true() and not one.names_any()
    state = state_of(world, "k1")
    assert state is not None
    assert state.seen == ("hungry", "served")
    assert world.row_texts() == ["hungry", "served"]
    one.member.leave()


def test_a_wanted_state_that_raises_is_marked_and_not_named_again(world: World) -> None:
    one = Rememberer.of(world)
    world.put("in.a", "k1", b"boom-woken")
    feed(world)
    turned(one.member, done=settled(world, {("k2", "served"), ("k1", "boom-woken")}), what="answers")
    world.put("in.a", "k1", b"hungry")
    turned(one.member, done=settled(world, {("k1", "failed")}), what="the state to be marked")
    state = state_of(world, "k1")
    assert state is not None
    assert state.failed == "internal_error timer/k1" and state.due_at is None
    assert one.is_true()
    assert not one.names_any()
    one.member.leave()
