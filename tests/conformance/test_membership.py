"""What a loop does when its group has lost it, on every body of its port."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from services.runtime.membership import OutOfGroup, Patience
from services.runtime.processor import loop
from services.runtime.processor.loop import Limits
from tests.conformance.turning import KEYS, Member, answered, put_all, settled, turned
from tests.conformance.worlds import World
from tests.waiting import until

SHORT = Patience(ask_s=0.2, doubt_s=0.1, sure_s=0.2, out_s=0.5)
HASTY = Limits(idle_s=0.02, topic_check_s=0.1, patience=SHORT)


def test_a_member_that_its_group_has_lost_joins_with_a_new_client_and_goes_on(world: World) -> None:
    member = Member(world, HASTY)
    turned(member, done=member.owns_all, what="all indexes")
    put_all(world, "in.a", "one")
    turned(member, done=settled(world, answered("one")), what="answers before")
    member.log.unlisted = True
    turned(member, done=lambda: member.log.rejoins, what="a new client")
    turned(member, done=member.owns_all, what="all indexes again")
    put_all(world, "in.a", "two")
    turned(member, done=settled(world, answered("two")), what="answers after")
    assert member.log.rejoins == 1
    member.leave()


def test_a_member_that_is_listed_and_reads_nothing_joins_with_a_new_client(world: World) -> None:
    member = Member(world, HASTY)
    turned(member, done=member.owns_all, what="all indexes")
    member.log.deaf = True
    put_all(world, "in.a", "one")
    turned(member, done=settled(world, answered("one")), what="answers of a new client")
    assert member.log.rejoins == 1
    member.leave()


def test_a_member_that_a_new_client_does_not_bring_back_ends_its_process(world: World) -> None:
    member = Member(world, HASTY)
    turned(member, done=member.owns_all, what="all indexes")
    member.log.unlisted, member.log.heals = True, False
    with pytest.raises(OutOfGroup, match=f"group millstream-{world.handler.name} does not list this member"):
        turned(member, done=lambda: False, what="the end")
    assert member.log.rejoins == 1
    member.leave()


def test_readiness_says_that_the_group_does_not_list_us(world: World) -> None:
    member = Member(world)
    member.leave()
    member = Member(world, Limits(idle_s=0.02, patience=Patience(ask_s=0.1, doubt_s=0.1)))
    turned(member, done=member.owns_all, what="all indexes")
    turned(member, done=lambda: member.processor.ready()[0], what="readiness")
    member.log.unlisted = True
    turned(member, done=lambda: not member.processor.ready()[0], what="the loop to say so")
    assert "does not list this member" in member.processor.ready()[1]
    assert member.processor.degraded("matcher") == (f"matcher: {member.processor.ready()[1]}",)
    member.log.unlisted = False
    turned(member, done=lambda: member.processor.ready()[0], what="readiness again")
    assert not member.log.rejoins
    member.leave()


def test_without_a_broker_to_ask_nobody_is_out_of_a_group(world: World) -> None:
    member = Member(world, HASTY)
    turned(member, done=member.owns_all, what="all indexes")
    member.log.unasked = True
    until(_turning_for(member, SHORT.out_s * 4), 20, "four times the patience to pass")
    assert not member.log.rejoins
    member.leave()


def test_a_producer_that_says_neither_yes_nor_no_ends_its_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "UNANSWERED_MAX", 3)
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    put_all(world, "in.a", "one")
    turned(member, done=settled(world, answered("one")), what="answers before")
    member.log.mute = True
    put_all(world, "in.b", "two")
    with pytest.raises(RuntimeError, match="the producer is stuck"):
        turned(member, done=lambda: world.put("in.a", KEYS[0], b"more"), what="the end")
    member.leave()
    heir = Member(world)
    turned(heir, done=settled(world, answered("two")), what="the heir's answers")
    heir.leave()


def test_the_group_itself_says_who_is_a_member(world: World) -> None:
    member, stranger = Member(world), world.log()
    turned(member, done=member.owns_all, what="all indexes")
    turned(member, done=_answer(member.log.ask_listed()), what="the group to list its member")
    assert member.log.ask_listed().result(20)
    assert not stranger.ask_listed().result(20)
    stranger.close()
    member.leave()
    heir = world.log()
    assert not heir.ask_listed().result(20), "nobody is left"
    heir.close()


def _answer(future: "Future[bool]") -> Callable[[], bool]:
    return lambda: future.done() and future.result(60)


def _turning_for(member: Member, seconds: float) -> Callable[[], bool]:
    """True once the member has turned for so long."""
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.daemon = True
    timer.start()

    def step() -> bool:
        member.turn()
        return over.is_set()

    return step
