"""Who hears of an event, and what is kept of an execution between its events. Pure: no clock, no I/O."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from services.contracts import envelope, ids
from services.contracts.commands import Callback, JobRequested
from services.contracts.events import (
    TYPES,
    ApprovalDecided,
    Event,
    ExecutionAccepted,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionWaiting,
    HookFailed,
    StepCompleted,
    StepRunning,
    matching,
    type_of,
)
from services.notifier.core.following import GAP, PARKED_MAX, Following
from services.notifier.core.matching import UNREADABLE, listeners_of, match
from services.notifier.matcher import TOPIC, Matcher
from services.runtime.processor.types import Change, Input, Poison, Routed, Row
from services.runtime.schemas import codec

EXECUTION = "ab" * 20
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CANARY = "sealed:v1:k:canary"


def facts(sequence: int) -> dict[str, Any]:
    return {
        "event_id": ids.event_id(EXECUTION, sequence),
        "execution_id": EXECUTION,
        "tenant": "acme",
        "sequence": sequence,
        "occurred_at": NOW,
        "causation_id": "c",
        "correlation_id": EXECUTION,
    }


def accepted(*callbacks: Callback) -> ExecutionAccepted:
    request = JobRequested(
        execution_id=EXECUTION,
        tenant="acme",
        requested_at=NOW,
        created_by="ann",
        name="report",
        job_type="noop",
        callbacks=callbacks,
    )
    return ExecutionAccepted(**facts(1), request=request, request_hash="00", plan=())


def callback(*events: str, url: str = "https://receiver.example/hook", secret: str | None = None) -> Callback:
    return Callback(events=events, url=url, headers={"X-Token": CANARY}, secret=secret)


def story(*callbacks: Callback) -> list[Event]:
    """An execution from its acceptance to its end: five events."""
    return [
        accepted(*callbacks),
        ExecutionStarted(**facts(2)),
        StepRunning(**facts(3), step="s", attempt=1, take_id="t", worker="w"),
        StepCompleted(**facts(4), step="s", attempt=1, output={"ünïcode": "✓"}),
        ExecutionCompleted(**facts(5), files=0, rows=0, bytes=0),
    ]


def record(event: Event, **headers: bytes) -> Input:
    outgoing = envelope.event(event, codec().encode(event), b"")
    kept = {**dict(outgoing.headers), **headers}
    return Input(TOPIC, 0, event.sequence, outgoing.key, outgoing.value, tuple(kept.items()))


class Driver:
    """Feeds a Matcher as the loop does, keeping the encoded state and the rows."""

    def __init__(self) -> None:
        self.matcher = Matcher(codec())
        self.body: bytes | None = None
        self.due_at: datetime | None = None
        self.rows: list[Row] = []
        self.dead: list[Poison] = []

    @property
    def state(self) -> Following | None:
        return None if self.body is None else self.matcher.decode(EXECUTION, self.body)

    def feed(self, *records: Input, now: datetime = NOW) -> None:
        for one in records:
            routed = self.matcher.route(one)
            assert isinstance(routed, Routed)
            self._keep(self.matcher.apply(routed, self.state, {}, one, now))

    def fire(self, now: datetime) -> None:
        assert self.state is not None
        self._keep(self.matcher.due(EXECUTION, self.state, {}, now, now))

    def _keep(self, change: Change[Following]) -> None:
        self.body = None if change.state is None else self.matcher.encode(change.state)
        self.due_at = change.due_at
        self.rows.extend(change.rows)
        if change.dead:
            self.dead.append(change.dead)

    @property
    def told(self) -> list[tuple[int, str]]:
        """Sequence and index of listener of each delivery, as they were made."""
        return [(row.values["sequence"], row.values["listener"].rpartition(":")[2]) for row in self.rows]


# ---------------------------------------------------------------- who hears of what


def test_what_pipelines_tell_is_heard_by_its_name() -> None:
    asked = callback("execution.waiting", "approval.decided", "hook.failed")
    waiting = ExecutionWaiting(**facts(2), reason="approval", step="ask", until=None)
    decided = ApprovalDecided(
        **facts(3),
        step="ask",
        decision="approved",
        decided_by="bob",
        owner=None,
        reason=None,
        form={},
        content_hash="c",
        approvals=1,
        quorum=1,
    )
    failed = HookFailed(
        **facts(5), step="ask", hook="Logger:done", on="exit", attempt=3, reason="r", message="m"
    )
    resumed = ExecutionResumed(**facts(4), reason="approval")
    driver = Driver()
    history: list[Event] = [accepted(asked), waiting, decided, resumed, failed]
    driver.feed(*map(record, history))
    assert driver.told == [(2, "0"), (3, "0"), (5, "0")]


@pytest.mark.parametrize(
    ("names", "heard"),
    [
        ((), [1, 2, 3, 4, 5]),
        (("EXECUTION",), [1, 2, 5]),
        (("TASK",), [3, 4]),
        (("on-start",), [2, 3]),
        (("on-task-complete", "on-execution-complete"), [4, 5]),
        (("execution.completed", "execution.completed"), [5]),
        (("execution.failed",), []),
        (("of.a.later.version", "step.completed"), [4]),
        (("of.a.later.version",), []),
    ],
)
def test_a_listener_hears_what_it_asked_for(names: tuple[str, ...], heard: list[int]) -> None:
    driver = Driver()
    driver.feed(*map(record, story(callback(*names))))
    assert driver.told == [(sequence, "0") for sequence in heard]
    assert driver.state is None


@given(st.lists(st.sampled_from(sorted(TYPES)), max_size=4), st.sampled_from(range(5)))
def test_matching_is_the_contract(names: list[str], index: int) -> None:
    first, *_ = events = story(callback(*names))
    assert isinstance(first, ExecutionAccepted)
    event = events[index]
    assert bool(match(event, listeners_of(first))) == (type_of(event) in matching(tuple(names)))


def test_each_listener_has_deliveries_of_its_own() -> None:
    driver = Driver()
    driver.feed(*map(record, story(callback("on-execution-complete"), callback("TASK"), callback())))
    assert driver.told == [(1, "2"), (2, "2"), (3, "1"), (3, "2"), (4, "1"), (4, "2"), (5, "0"), (5, "2")]
    delivery_ids = [row.values["delivery_id"] for row in driver.rows]
    assert len(set(delivery_ids)) == len(delivery_ids)
    assert delivery_ids[0] == ids.delivery_id(ids.event_id(EXECUTION, 1), f"{EXECUTION}:2")


def test_a_delivery_holds_what_is_sent() -> None:
    [delivery] = match(story()[3], listeners_of(accepted(callback("TASK", secret=CANARY))))
    body = json.loads(delivery.body)
    assert (body["specversion"], body["type"], body["id"]) == ("1.0", "step.completed", delivery.event_id)
    assert body["data"]["output"] == {"ünïcode": "✓"}
    assert (delivery.destination, delivery.method) == ("https://receiver.example:443", "POST")
    assert (delivery.headers, delivery.secret) == ({"X-Token": CANARY}, CANARY)
    assert "." not in delivery.delivery_id


def test_no_body_holds_what_is_sealed() -> None:
    [first] = match(accepted(callback(secret=CANARY)), listeners_of(accepted(callback(secret=CANARY))))
    assert CANARY not in first.body.decode()


def test_a_url_that_no_check_let_in_is_a_destination_of_its_own() -> None:
    [delivery] = match(story()[1], listeners_of(accepted(callback(url="http://a@b/"))))
    assert delivery.destination == UNREADABLE


# ---------------------------------------------------------------- what is remembered


def test_without_callbacks_nothing_is_remembered_or_even_decoded() -> None:
    driver = Driver()
    first, *others = map(record, story())
    driver.feed(first)
    assert (driver.state, driver.rows) == (None, [])
    driver.feed(*(structs.replace(other, value=b"not decoded") for other in others))
    assert (driver.state, driver.rows, driver.dead) == (None, [], [])


@given(st.lists(st.integers(0, 4), max_size=12))
def test_records_that_come_again_change_nothing(again: Sequence[int]) -> None:
    records = [record(event) for event in story(callback())]
    driver = Driver()
    for index in range(len(records) - 1):
        driver.feed(records[index], *(records[old] for old in again if old <= index))
    driver.feed(records[-1])
    assert driver.told == [(sequence, "0") for sequence in range(1, 6)]


def test_a_replay_after_the_end_makes_the_same_deliveries() -> None:
    driver = Driver()
    records = [record(event) for event in story(callback())]
    driver.feed(*records, *records)
    made = [row.values["delivery_id"] for row in driver.rows]
    assert made[:5] == made[5:]
    assert driver.state is None


def test_events_behind_a_gap_wait_for_it_to_close() -> None:
    one, two, three, four, five = (record(event) for event in story(callback()))
    driver = Driver()
    driver.feed(one, four, five, five, three)
    assert driver.told == [(1, "0")]
    assert driver.due_at == NOW + GAP
    driver.feed(two)
    assert driver.told == [(sequence, "0") for sequence in range(1, 6)]
    assert driver.body is None


def test_a_gap_that_does_not_close_is_passed_in_order() -> None:
    one, _, three, four, five = (record(event) for event in story(callback()))
    driver = Driver()
    driver.feed(one, four, now=NOW)
    driver.feed(three, now=NOW + timedelta(seconds=30))
    assert driver.due_at == NOW + GAP
    driver.fire(NOW + GAP)
    assert driver.told == [(1, "0"), (3, "0"), (4, "0")]
    driver.feed(five)
    assert driver.told[-1] == (5, "0")
    assert driver.body is None


def test_what_is_parked_is_bounded() -> None:
    driver = Driver()
    driver.feed(record(accepted(callback())))
    for sequence in range(3, PARKED_MAX + 4):
        driver.feed(record(ExecutionStarted(**facts(sequence))))
    assert len(driver.rows) == PARKED_MAX + 2
    assert driver.state is not None
    assert driver.state.parked == ()


def test_an_unreadable_event_is_a_dead_letter_and_no_gap() -> None:
    one, two, *others = (record(event) for event in story(callback()))
    driver = Driver()
    driver.feed(one, structs.replace(two, value=b"\x00garbage"), *others)
    assert [poison.reason for poison in driver.dead] == ["undecodable"]
    assert driver.told == [(1, "0"), (3, "0"), (4, "0"), (5, "0")]


def test_an_unreadable_event_without_its_sequence_is_a_gap() -> None:
    one, two, three, *_ = (record(event) for event in story(callback()))
    driver = Driver()
    driver.feed(one, structs.replace(two, value=b"\x00garbage", headers=()), three)
    assert [poison.reason for poison in driver.dead] == ["undecodable"]
    assert driver.told == [(1, "0")]
    assert driver.due_at == NOW + GAP


def test_an_event_under_another_key_is_a_dead_letter() -> None:
    driver = Driver()
    one = record(accepted(callback()))
    driver.feed(structs.replace(one, key=b"cd" * 20))
    assert [poison.reason for poison in driver.dead] == ["undecodable"]
    assert driver.rows == []


@pytest.mark.parametrize("key", [None, b"", b"x", b"AB" * 20, b"\xff" * 40])
def test_a_key_that_is_no_execution_id_is_poison(key: bytes | None) -> None:
    with pytest.raises(Poison, match="execution id"):
        Matcher(codec()).route(structs.replace(record(accepted()), key=key))
