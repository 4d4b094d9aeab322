"""The loop's conformance suite: what it promises, on every body of its ports."""

import threading

import pytest

from services.runtime import entropy
from services.runtime.processor.letters import HEAD_BYTES
from services.runtime.processor.loop import Limits
from tests.conformance.counting import TERM
from tests.conformance.faulty import Killed
from tests.conformance.turning import KEYS, Member, answered, put_all, settled, turned
from tests.conformance.worlds import PARTITIONS, World, answers, state_of
from tests.waiting import until

FULL = b"\xff" * 1_047_000  # as large as the topic takes, and no text


def test_every_record_counts_once_and_is_answered_once(world: World) -> None:
    put_all(world, "in.a", "one")
    put_all(world, "in.b", "two")
    member = Member(world)
    turned(member, done=settled(world, answered("one") | answered("two")), what="all answers")
    assert sorted(answers(world)) == sorted(answered("one") | answered("two"))
    for key in KEYS:
        state = state_of(world, key)
        assert state is not None
        assert set(state.seen) == {"one", "two"}
    assert sorted(world.row_texts()) == sorted(["one", "two"] * len(KEYS))
    member.leave()


def test_members_share_the_indexes_and_take_them_over_when_one_leaves(world: World) -> None:
    first, second = Member(world), Member(world)

    def shared() -> bool:
        return bool(first.indexes and second.indexes) and len(first.indexes | second.indexes) == PARTITIONS

    turned(first, second, done=shared, what="both to own indexes")
    assert not first.indexes & second.indexes
    put_all(world, "in.a", "one")
    turned(first, second, done=settled(world, answered("one")), what="answers of both")
    first.leave()
    put_all(world, "in.b", "two")
    turned(second, done=settled(world, answered("two")), what="answers of the one that is left")
    assert set(answers(world)) == answered("one") | answered("two")  # an outbox may be published again
    second.leave()


def test_a_fenced_index_writes_nothing_and_the_others_go_on(world: World) -> None:
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    successor = world.store()
    successor.acquire([0])  # as a new owner would, while this one was frozen
    put_all(world, "in.a", "one")

    def noticed() -> bool:
        return member.indexes == set(range(1, PARTITIONS))

    turned(member, done=noticed, what="the fenced index to be dropped")
    assert successor.numbers([0])[0] == (2, 0), "the stale owner wrote to an index that it had lost"
    turned(member, done=settled(world, answered("one")), what="the index to be taken up again")
    assert set(answers(world)) == answered("one")
    member.leave()


@pytest.mark.parametrize("point", ["after_poll", "before_commit", "after_commit", "after_produce"], ids=str)
def test_death_at_any_step_loses_nothing_and_counts_nothing_twice(world: World, point: str) -> None:
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    for place in (member.store, member.log):
        if f"die_{point}" in vars(place):
            setattr(place, f"die_{point}", True)
    put_all(world, "in.a", "one")
    with pytest.raises(Killed):
        turned(member, done=lambda: False, what="death")
    member.leave()

    heir = Member(world)
    turned(heir, done=settled(world, answered("one")), what="the heir's answers")
    for key in KEYS:
        state = state_of(world, key)
        assert state is not None
        assert state.seen == ("one",)
    assert len(world.row_texts()) == len(KEYS)
    assert set(answers(world)) == answered("one"), "duplicates are allowed, strangers are not"
    heir.leave()


def test_a_lost_commit_answer_is_settled_by_the_batch_number(world: World) -> None:
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    member.store.lose_answer = True
    put_all(world, "in.a", "one")
    turned(member, done=settled(world, answered("one")), what="all answers")
    assert sorted(answers(world)) == sorted(answered("one"))
    assert len(world.row_texts()) == len(KEYS)
    member.leave()


def test_an_absent_database_pauses_the_loop_and_doubles_nothing(world: World) -> None:
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    member.store.away = True
    put_all(world, "in.a", "one")
    stop = threading.Event()
    thread = threading.Thread(target=member.processor.run, args=(stop,), daemon=True)
    thread.start()
    until(lambda: not member.processor.ready()[0], 10, "the loop to say that it is not ready")
    assert answers(world) == []
    member.store.away = False
    until(settled(world, answered("one")), 30, "all answers")
    until(lambda: member.processor.ready()[0], 10, "the loop to be ready again")
    stop.set()
    thread.join(20)
    assert sorted(answers(world)) == sorted(answered("one"))


def test_an_idle_loop_says_that_its_database_stands_still(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entropy, "RESYNC_S", 0.1)
    member = Member(world, Limits(idle_s=0.02, stall_s=2.0))
    turned(member, done=member.owns_all, what="all indexes")
    stop = threading.Event()
    thread = threading.Thread(target=member.processor.run, args=(stop,), daemon=True)
    thread.start()
    until(lambda: member.processor.ready()[0], 20, "the loop to be ready")
    member.store.answers.clear()
    until(lambda: not member.processor.ready()[0], 10, "the loop to say that it is not ready")
    assert "database or broker does not answer" in member.processor.ready()[1]
    assert member.processor.live()[0], "it is not to be ended for that"
    member.store.answers.set()
    until(lambda: member.processor.ready()[0], 20, "the loop to be ready again")
    stop.set()
    thread.join(20)


def test_poison_is_dead_lettered_untouched_and_its_neighbours_go_on(world: World) -> None:
    world.put("in.a", "k1", b"\xff\xfe")
    world.put("in.a", "k1", None)
    world.put("in.a", "k2", b"boom")
    world.put("in.a", "k3", b"large")
    world.put("in.a", "k4", FULL)
    world.put("in.a", "k\0", b"one")
    put_all(world, "in.a", "one")
    member = Member(world)
    turned(member, done=settled(world, answered("one")), what="the neighbours' answers")
    letters = {dict(record.headers)["ms_reason"]: record for record in world.records("in.a.dlq")}
    assert set(letters) == {b"internal_error", b"empty", b"too_large", b"bad_key"}
    assert len(world.records("in.a.dlq")) == 6
    values = {record.value for record in world.records("in.a.dlq")}
    assert values == {b"\xff\xfe", None, b"boom", b"large", b"one", FULL[:HEAD_BYTES]}
    for record in letters.values():
        headers = dict(record.headers)
        assert headers["ms_service"].decode() == world.handler.name
        assert headers["ms_origin"].decode().rpartition("/")[0].count("/") == 1
    assert ("k2", "failed") in answers(world)
    failed = state_of(world, "k2")
    assert failed is not None
    assert failed.failed is not None and failed.failed.startswith("internal_error in.a")
    member.leave()


@pytest.mark.parametrize("text", ["nul", "raw-nul"])
def test_data_that_the_database_refuses_is_found_by_halves(world: World, text: str) -> None:
    put_all(world, "in.a", "one")
    world.put("in.a", "k5", text.encode())
    put_all(world, "in.a", "two")
    member = Member(world)
    turned(member, done=settled(world, answered("one") | answered("two")), what="the neighbours' answers")
    letters = world.records("in.a.dlq")
    assert [(record.key, record.value) for record in letters] == [(b"k5", text.encode())]
    assert dict(letters[0].headers)["ms_reason"] == b"data_error"
    assert sorted(world.row_texts()) == sorted(["one", "two"] * len(KEYS))
    member.leave()


def test_one_refused_record_of_a_thousand_costs_a_few_commits(world: World) -> None:
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    for number in range(1000):
        world.put("in.a", f"n{number}", b"nul" if number == 700 else b"x", partition=0)
    before = member.store.commits
    expected = {(f"n{number}", "x") for number in range(1000) if number != 700}
    turned(member, done=settled(world, expected), what="the neighbours' answers")
    assert [record.key for record in world.records("in.a.dlq")] == [b"n700"]
    # Twice the depth of a thousand, and as many batches as the records came in.
    assert member.store.commits - before <= 100
    member.leave()


def test_replaying_every_input_has_no_new_effect(world: World) -> None:
    put_all(world, "in.a", "one")
    put_all(world, "in.b", "two")
    member = Member(world)
    turned(member, done=settled(world, answered("one") | answered("two")), what="all answers")
    member.leave()
    before = {key: state_of(world, key) for key in KEYS}
    world.rewind()
    again = Member(world)
    world.put("in.b", "last", b"three")
    turned(again, done=settled(world, {("last", "three")}), what="the replay to end")
    assert {key: state_of(world, key) for key in KEYS} == before
    assert len(world.row_texts()) == 2 * len(KEYS) + 1
    assert set(answers(world)) == answered("one") | answered("two") | {("last", "three")}
    again.leave()


def test_an_input_that_was_recreated_is_read_from_its_start(world: World) -> None:
    put_all(world, "in.a", "one")
    member = Member(world)
    turned(member, done=settled(world, answered("one")), what="all answers")
    world.recreate("in.a")
    put_all(world, "in.a", "two")
    turned(member, done=settled(world, answered("two")), what="answers from the new log")
    assert set(answers(world)) == answered("one") | answered("two")
    member.leave()


def test_taking_indexes_up_anew_is_tried_again_when_it_fails_half_way(world: World) -> None:
    put_all(world, "in.a", "one")
    member = Member(world)
    turned(member, done=settled(world, answered("one")), what="all answers")
    world.recreate("in.a")
    put_all(world, "in.a", "two")
    member.store.fail_to_acquire = 2
    turned(member, done=settled(world, answered("two")), what="answers from the new log")
    assert member.store.fail_to_acquire == 0
    member.leave()


def test_an_output_that_was_lost_is_reconciled(world: World) -> None:
    put_all(world, "in.a", "one")
    member = Member(world)
    turned(member, done=settled(world, answered("one")), what="all answers")
    world.recreate("out")

    def given_again() -> bool:
        return answers(world).count(("again", "one")) == len(KEYS)

    turned(member, done=given_again, what="the answers to be given again")
    assert set(answers(world)) <= answered("one") | {("again", "one")}
    member.leave()


def test_a_parked_record_goes_on_at_once_when_what_it_waits_for_appears(world: World) -> None:
    member = Member(world)
    for number, key in enumerate(KEYS):
        world.put("in.a", key, f"wait:late{number}".encode())
    turned(
        member,
        done=lambda: all((state := state_of(world, key)) and state.parked for key in KEYS),
        what="all to be parked",
    )
    for number in range(len(KEYS)):
        world.put("in.b", f"late{number}", b"here")
    expected = {(f"wait:late{number}", f"found late{number}") for number in range(len(KEYS))}
    turned(member, done=settled(world, expected), what="the parked ones to go on", timeout_s=15)
    member.leave()


def test_a_parked_record_is_woken_across_members(world: World) -> None:
    first, second = Member(world), Member(world)
    turned(first, second, done=lambda: first.indexes and second.indexes, what="both to own indexes")
    for number, key in enumerate(KEYS):
        world.put("in.a", key, f"wait:late{number}".encode())
        world.put("in.b", f"late{number}", b"here")
    expected = {(f"wait:late{number}", f"found late{number}") for number in range(len(KEYS))}
    turned(first, second, done=settled(world, expected), what="the parked ones to go on", timeout_s=15)
    first.leave()
    second.leave()


def test_a_timer_is_judged_only_after_what_came_before_it_was_read(world: World) -> None:
    member = Member(world, Limits(records=1, idle_s=0.02))
    world.put("in.a", "k1", b"timer")
    turned(member, done=lambda: state_of(world, "k1"), what="the timer to be set")
    texts = [f"t{number}" for number in range(100)]
    for text in texts:
        world.put("in.b", "k1", text.encode())
    turned(member, done=settled(world, {("k1", "fired1")}), what="the timer to fire")
    assert [text for key, text in answers(world) if key == "k1"] == ["timer", *texts, "fired1"]
    member.leave()


def test_a_timer_gets_a_fresh_term_after_an_outage_of_ours(world: World) -> None:
    member = Member(world)
    world.put("in.a", "k1", b"timer")
    turned(member, done=lambda: state_of(world, "k1"), what="the timer to be set")
    member.leave()
    store = world.store()
    set_at = store.now()
    until(lambda: store.now() > set_at + 2 * TERM, 10, "the timer's instant to pass unwatched")
    heir = Member(world)
    turned(heir, done=heir.owns_all, what="all indexes")
    adopted_at = store.now()
    turned(heir, done=settled(world, {("k1", "fired1")}), what="the timer to fire")
    assert store.now() >= adopted_at + TERM * 0.9
    heir.leave()


def test_a_timer_that_raises_is_taken_away_and_its_state_marked(world: World) -> None:
    member = Member(world)
    world.put("in.a", "k1", b"boom-timer")
    world.put("in.a", "k1", b"timer")
    turned(
        member,
        done=lambda: (state := state_of(world, "k1")) and state.failed,
        what="the state to be marked",
    )
    state = state_of(world, "k1")
    assert state is not None
    assert state.failed == "internal_error timer/k1" and state.due_at is None
    member.leave()


def test_more_than_one_batch_is_taken_in_pieces(world: World) -> None:
    for number in range(500):
        world.put("in.a", f"n{number}", b"x")
    member = Member(world, Limits(records=64, idle_s=0.02))
    expected = {(f"n{number}", "x") for number in range(500)}
    turned(member, done=settled(world, expected), what="all answers")
    assert len(answers(world)) == 500
    member.leave()
