"""What the loop promises of dead letters and of records that no broker takes, on every body of its ports."""

import hashlib
import threading
from dataclasses import replace
from typing import Any

import pytest

from services.contracts.envelope import Outgoing
from services.runtime.blobs import BlobsUnavailable
from services.runtime.membership import Patience
from services.runtime.processor import letters
from services.runtime.processor.types import Input, Poison
from tests.claims import claimed
from tests.conformance.turning import KEYS, QUICK, Member, answered, put_all, settled, turned
from tests.conformance.worlds import MemoryWorld, World, answers
from tests.waiting import joined

BOMB = b"\xff" * 3_000_000
"""Compressed it is a few hundred bytes: every topic takes it, and no producer of ours could send it on."""


def headers_of(letter: Input) -> dict[str, str]:
    return {name: value.decode() for name, value in letter.headers}


def test_the_letter_of_a_record_larger_than_any_topic_takes_fits(world: World) -> None:
    put_all(world, "in.a", "one")
    world.put_compressed("in.a", "k1", BOMB)
    put_all(world, "in.a", "two")
    member = Member(world)
    turned(member, done=settled(world, answered("one") | answered("two")), what="the neighbours' answers")
    [letter] = world.records("in.a.dlq")
    told = headers_of(letter)
    assert told["ms_reason"] == "internal_error"  # it is no text
    assert told["ms_origin"].startswith(f"{world.topic('in.a')}/")
    assert told["ms_bytes"] == str(len(BOMB))
    assert told["ms_sha256"] == hashlib.sha256(BOMB).hexdigest()
    assert letter.value == BOMB[: letters.HEAD_BYTES]
    assert claimed(world.blobs, letter.headers) == (b"k1", BOMB, ())
    member.leave()


def test_a_letter_goes_without_its_claim_while_the_blob_store_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(key: str) -> Any:
        raise BlobsUnavailable(key)

    monkeypatch.setattr(world.blobs, "create", away)
    world.put_compressed("in.a", "k1", BOMB)
    put_all(world, "in.a", "one")
    member = Member(world)
    turned(member, done=settled(world, answered("one")), what="the neighbours' answers")
    [letter] = world.records("in.a.dlq")
    assert "ms_claim" not in headers_of(letter)
    assert headers_of(letter)["ms_sha256"] == hashlib.sha256(BOMB).hexdigest()
    member.leave()


def test_a_letter_that_a_former_owner_left_in_its_outbox_fits_too(world: World) -> None:
    """Such a row stopped every owner of the index, over restarts too, until somebody emptied it."""
    lost = Input(world.topic("in.a"), 0, 7, b"k1", BOMB, (("x", b"y" * 100_000),))
    small = Outgoing(world.handler.output, b"k2", b"left")
    world.leave_behind(0, [letters.dead_letter("s", lost, Poison("undecodable", "no text")), small])
    put_all(world, "in.a", "one")
    member = Member(world)
    turned(member, done=settled(world, answered("one") | {("k2", "left")}), what="all answers")
    [letter] = world.records("in.a.dlq")
    assert headers_of(letter)["ms_origin"] == f"{world.topic('in.a')}/0/7"
    assert claimed(world.blobs, letter.headers) == (b"k1", BOMB, (("x", b"y" * 100_000),))
    member.leave()


def test_a_record_that_its_topic_refuses_for_ever_is_a_dead_letter(world: World) -> None:
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    world.limit("out", 60_000)
    text = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(2000))
    world.put("in.a", "k1", text.encode())
    put_all(world, "in.b", "two")
    turned(member, done=settled(world, answered("two")), what="the neighbours' answers")
    turned(member, done=lambda: world.records("out.dlq"), what="the dead letter")
    letter = world.records("out.dlq")[0]
    assert (letter.key, letter.value) == (b"k1", text.encode())
    assert headers_of(letter)["ms_reason"] == "unsendable"
    assert headers_of(letter)["ms_origin"] == f"outbox/{world.handler.name}"
    member.leave()


def test_a_topic_that_takes_no_letter_of_any_size_halts_the_loop_with_the_reason(world: World) -> None:
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    world.limit("in.a.dlq", 100)
    world.put("in.a", "k1", b"\xff")
    turned(member, done=lambda: not member.processor.ready()[0], what="the loop to say that it is halted")
    reason = member.processor.ready()[1]
    assert world.topic("in.a.dlq") in reason and "millstream topics apply" in reason
    world.limit("in.a.dlq", 1_000_000)
    turned(member, done=lambda: world.records("in.a.dlq"), what="the dead letter")
    turned(member, done=lambda: member.processor.ready()[0], what="the loop to be ready again")
    member.leave()


def test_a_loop_that_is_halted_for_long_is_not_taken_for_deaf(world: World) -> None:
    if not isinstance(world, MemoryWorld):
        pytest.skip("joining a real group takes longer than this patience")
    patience = Patience(ask_s=0.1, doubt_s=0.05, sure_s=0.1, out_s=0.5)
    member = Member(world, replace(QUICK, patience=patience))
    turned(member, done=member.owns_all, what="all indexes")
    world.limit("in.a.dlq", 100)
    world.put("in.a", "k1", b"\xff")
    turned(member, done=lambda: not member.processor.ready()[0], what="the loop to say that it is halted")
    put_all(world, "in.a", "one")
    mending = threading.Timer(4 * patience.out_s, world.limit, ("in.a.dlq", 1_000_000))
    mending.start()
    turned(member, done=settled(world, answered("one")), what="all answers")  # OutOfGroup would pass
    joined(mending)
    assert member.processor._vigil.trouble is None
    member.leave()


def test_a_topic_that_is_missing_halts_the_loop_with_the_reason_until_it_is_made(world: World) -> None:
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    world.remove("in.a.dlq")
    world.put("in.a", "k1", b"\xff")
    turned(
        member,
        done=lambda: world.topic("in.a.dlq") in member.processor.ready()[1],
        what="the reason to name the topic",
        timeout_s=90,
    )
    world.make("in.a.dlq")
    put_all(world, "in.a", "one")
    turned(member, done=settled(world, answered("one")), what="all answers", timeout_s=60)
    turned(member, done=lambda: world.records("in.a.dlq"), what="the dead letter")
    member.leave()


def test_a_topic_that_we_may_not_write_to_halts_the_loop_until_we_may(
    world: World, request: pytest.FixtureRequest
) -> None:
    if not isinstance(world, MemoryWorld):
        pytest.skip("the test broker knows no rights; tests/unit/runtime has the codes that a real one sends")
    member = Member(world)
    turned(member, done=member.owns_all, what="all indexes")
    world.broker.forbidden.add("out")
    put_all(world, "in.a", "one")
    turned(member, done=lambda: not member.processor.ready()[0], what="the loop to say that it is halted")
    assert "out" in member.processor.ready()[1]
    assert answers(world) == []
    world.broker.forbidden.clear()
    turned(member, done=settled(world, answered("one")), what="all answers")
    assert len(answers(world)) == len(KEYS)
    member.leave()
