"""The execution as a fold: laws over random histories."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from services.contracts import events, ids
from services.contracts.commands import (
    ExecutionCommand,
    File,
    JobRequested,
    StepOutcome,
    StepReport,
    StepRequested,
)
from services.contracts.events import Event, PlannedStep
from services.contracts.status import Status, StepStatus
from services.executor.core import commands, decide
from services.executor.core.execution import Execution, evolve, fold
from services.executor.core.retry import LONGEST_S, retry_at
from services.executor.core.story import Story

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ID = ids.execution_id("t", "p", "r", "k")
FILE = File(name="a.csv", key="k", batch="a", rows=3, bytes=30, sha256="0" * 64, content_type="text/csv")


def request(origin: str = "ad_hoc") -> JobRequested:
    return JobRequested(
        execution_id=ID,
        tenant="t",
        requested_at=NOW,
        created_by="p",
        name="n",
        job_type="noop",
        origin=origin,
    )


def plan(steps: int = 1, max_attempts: int = 3, timeout_s: int = 60) -> tuple[PlannedStep, ...]:
    fields: dict[str, Any] = {"parameters": {}, "timeout_s": timeout_s, "max_attempts": max_attempts}
    return tuple(PlannedStep(name=f"s{number}", kind="NOOP", **fields) for number in range(steps))


def report(order: StepRequested, take: str, kind: str = "claim", **more: Any) -> StepReport:
    return StepReport(
        execution_id=ID,
        tenant="t",
        attempt_id=order.attempt_id,
        take_id=take,
        worker="w",
        kind=kind,
        lease_s=20,
        reported_at=NOW,
        **more,
    )


def outcome(order: StepRequested, take: str, how: str = "done", **more: Any) -> StepOutcome:
    return StepOutcome(
        execution_id=ID,
        tenant="t",
        attempt_id=order.attempt_id,
        take_id=take,
        worker="w",
        outcome=how,
        finished_at=NOW,
        **more,
    )


def command(kind: str, key: str = "1") -> ExecutionCommand:
    return ExecutionCommand(
        command_id=ids.command_id("t", "p", ID, kind, key),
        execution_id=ID,
        tenant="t",
        kind=kind,
        requested_by="p",
        requested_at=NOW,
        rerun_id=ids.rerun_id(ID, 1) if kind == "rerun" else None,
    )


def told(story: Story | None) -> Story:
    assert story is not None
    return story


def names(history: Iterable[Event]) -> list[str]:
    return [events.type_of(event) for event in history]


def test_an_ad_hoc_execution_is_pending_until_its_first_step_is_taken() -> None:
    accepted = decide.accept(request(), "h", plan(), NOW)
    assert accepted.execution.status is Status.PENDING
    taken = told(decide.report(accepted.execution, report(accepted.requests[0], "a"), NOW))
    assert names(taken.events) == ["execution.started", "step.running"]
    assert taken.execution.status is Status.RUNNING


def test_a_fired_slot_has_no_pending_phase() -> None:
    accepted = decide.accept(request("scheduled"), "h", plan(), NOW)
    assert names(accepted.events) == ["execution.accepted", "execution.started"]


def test_the_first_take_owns_the_attempt_and_others_are_dropped() -> None:
    accepted = decide.accept(request(), "h", plan(), NOW)
    order = accepted.requests[0]
    owned = told(decide.report(accepted.execution, report(order, "a"), NOW)).execution
    assert decide.report(owned, report(order, "b"), NOW) is None
    assert decide.outcome(owned, outcome(order, "b"), NOW) is None
    done = told(decide.outcome(owned, outcome(order, "a", files=(FILE,)), NOW))
    assert names(done.events) == ["step.completed", "file.published", "execution.completed"]
    assert done.execution.status is Status.COMPLETED


def test_an_outcome_without_a_claim_brings_its_running_along() -> None:
    accepted = decide.accept(request(), "h", plan(), NOW)
    done = told(decide.outcome(accepted.execution, outcome(accepted.requests[0], "a"), NOW))
    assert names(done.events) == [
        "execution.started",
        "step.running",
        "step.completed",
        "execution.completed",
    ]


def test_a_heartbeat_moves_the_lease_and_writes_no_event() -> None:
    accepted = decide.accept(request(), "h", plan(), NOW)
    order = accepted.requests[0]
    owned = told(decide.report(accepted.execution, report(order, "a"), NOW)).execution
    later = NOW + timedelta(seconds=15)
    renewed = told(decide.report(owned, report(order, "a", "heartbeat"), later))
    assert renewed.events == []
    assert decide.next_instant(renewed.execution) == later + decide.LEASE


def test_a_silent_worker_costs_an_attempt_and_the_step_is_asked_again_at_once() -> None:
    accepted = decide.accept(request(), "h", plan(), NOW)
    owned = told(decide.report(accepted.execution, report(accepted.requests[0], "a"), NOW)).execution
    after = NOW + decide.LEASE
    lost = decide.due(owned, after, NOW - timedelta(hours=1))
    assert names(lost.events) == ["step.retry_scheduled"]
    assert [order.attempt for order in lost.requests] == [2]
    assert decide.outcome(lost.execution, outcome(accepted.requests[0], "a"), after) is None


def test_silence_that_we_slept_through_is_no_silence() -> None:
    accepted = decide.accept(request(), "h", plan(timeout_s=3600), NOW)
    owned = told(decide.report(accepted.execution, report(accepted.requests[0], "a"), NOW)).execution
    woke = NOW + timedelta(minutes=10)
    spared = decide.due(owned, woke, woke)
    assert spared.events == []
    assert decide.next_instant(spared.execution) == woke + decide.LEASE


def test_attempts_end_with_a_failure_that_says_why() -> None:
    story = decide.accept(request(), "h", plan(max_attempts=2), NOW)
    order = story.requests[0]
    story = told(decide.outcome(story.execution, outcome(order, "a", "retry", reason="r", message="m"), NOW))
    assert names(story.events)[-1] == "step.retry_scheduled"
    at = decide.next_instant(story.execution)
    assert at is not None
    assert decide.due(story.execution, at - timedelta(milliseconds=1), NOW).requests == []
    story = decide.due(story.execution, at, NOW)
    story = told(
        decide.outcome(story.execution, outcome(story.requests[0], "b", "retry", reason="r", message="m"), at)
    )
    assert names(story.events)[-2:] == ["step.failed", "execution.failed"]
    failed = story.events[-1]
    assert isinstance(failed, events.ExecutionFailed)
    assert (failed.reason, failed.message, failed.step) == ("r", "m", "s0")


def test_a_step_that_nobody_takes_fails_after_a_day() -> None:
    story = decide.accept(request(), "h", plan(), NOW)
    at = decide.next_instant(story.execution)
    assert at == NOW + timedelta(hours=24)
    ended = decide.due(story.execution, at, NOW).events[-1]
    assert isinstance(ended, events.ExecutionFailed)
    assert (ended.reason, ended.message) == ("queue_timeout", "no worker took the step within 24 h")


def test_a_worker_that_only_says_it_is_alive_is_not_believed_for_ever() -> None:
    story = decide.accept(request(), "h", plan(), NOW)
    order, now = story.requests[0], NOW
    story = told(decide.report(story.execution, report(order, "a"), now))
    while story.execution.status is Status.RUNNING:
        now += timedelta(seconds=5)
        if (due := decide.next_instant(story.execution)) and due <= now:
            story = decide.due(story.execution, now, NOW)
        else:
            story = told(decide.report(story.execution, report(order, "a", "heartbeat"), now))
    assert now - NOW == timedelta(seconds=60) + decide.WORKER_FIRST
    failed = story.events[-1]
    assert isinstance(failed, events.ExecutionFailed)
    assert (failed.reason, failed.message) == ("timeout", "the step ran longer than its timeout of 60 s")


def test_what_is_away_costs_no_attempt_until_the_steps_timeout() -> None:
    story = decide.accept(request(), "h", plan(max_attempts=2), NOW)
    now, waits = NOW, []
    while story.execution.status is not Status.FAILED:
        order = story.requests[0]
        away = outcome(order, f"t{order.attempt}", "retry", reason="source_unavailable", message="m")
        story = told(decide.outcome(story.execution, away, now))
        if at := decide.next_instant(story.execution):
            waits.append((at - now).total_seconds())
            now = at
            story = decide.due(story.execution, now, NOW)
    assert len(waits) > 2
    assert max(waits) <= 30 * 1.2
    assert timedelta(seconds=60) <= now - NOW <= timedelta(seconds=60 + 36)
    failed = story.events[-1]
    assert isinstance(failed, events.ExecutionFailed)
    assert failed.reason == "source_unavailable"
    assert "timeout of 60 s" in failed.message


def test_backoff_doubles_to_a_minute_within_a_fifth() -> None:
    for attempt in range(1, 40):
        at = retry_at(ids.attempt_id(ID, "s", attempt), attempt, LONGEST_S, NOW)
        wait = (at - NOW).total_seconds()
        nominal = min(60.0, 2.0 ** (attempt - 1))
        assert nominal * 0.8 <= wait <= nominal * 1.2


@pytest.mark.parametrize("status", [status for status in Status if status.terminal])
def test_a_terminal_state_takes_nothing_more(status: Status) -> None:
    accepted = decide.accept(request(), "h", plan(), NOW)
    ended = structs.replace(accepted.execution, status=status)
    order = accepted.requests[0]
    assert decide.report(ended, report(order, "a"), NOW) is None
    assert decide.outcome(ended, outcome(order, "a"), NOW) is None
    assert decide.fail(ended, "r", "m", "d", NOW) is None
    assert decide.next_instant(ended) is None


class World:
    """A random run: orders float, takes race, messages double and come late, time jumps."""

    def __init__(self, steps: int) -> None:
        story = decide.accept(request(), "h", plan(steps), NOW)
        self.now = NOW
        self.state: Execution = story.execution
        self.history: list[Event] = list(story.events)
        self.orders: list[StepRequested] = list(story.requests)

    def take(self, story: Story | None) -> None:
        if story is None:
            return
        self.state = story.execution
        self.history += story.events
        self.orders += story.requests

    def step(self, move: tuple[str, int, str], times: int = 1) -> None:
        kind, pick, take = move
        order = self.orders[pick % len(self.orders)]
        for _ in range(times):
            self.say(kind, pick, take, order)

    def say(self, kind: str, pick: int, take: str, order: StepRequested) -> None:
        if kind == "time":
            self.now += timedelta(seconds=pick % 40)
            due = decide.next_instant(self.state)
            if due is not None and due <= self.now:
                self.take(decide.due(self.state, self.now, NOW - timedelta(days=1)))
        elif kind in ANSWERS:
            story = Story.on(self.state, "", self.now)
            commands.decide(story, command(kind, str(pick)))
            self.take(story)
        elif kind in ("claim", "heartbeat", "part"):
            said = report(order, take, kind, files=pick % 7, rows=pick)
            self.take(decide.report(self.state, said, self.now))
        else:
            files = (structs.replace(FILE, name=f"{take}.csv"),) if kind == "done" else ()
            self.take(decide.outcome(self.state, outcome(order, take, kind, files=files), self.now))


ANSWERS = {
    "cancel": "execution.cancelled",
    "pause": "execution.waiting",
    "rerun": "execution.rerun",
    "resume": "execution.resumed",
}
KINDS = [*ANSWERS, "amend", "approve", "explode", "reject", "remark", "start"]
WORDS = ["claim", "heartbeat", "part", "done", "retry", "fail", "time", "time"]
MOVES = st.lists(
    st.tuples(
        st.sampled_from([*WORDS * 3, *ANSWERS]),
        st.integers(0, 1000),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=60,
)


@settings(max_examples=400)
@given(MOVES, st.integers(1, 4))
def test_any_history_is_legal(moves: list[tuple[str, int, str]], steps: int) -> None:
    world = World(steps)
    for move in moves:
        world.step(move)
    assert [event.sequence for event in world.history] == list(range(1, len(world.history) + 1))
    assert len({event.event_id for event in world.history}) == len(world.history)
    ends = [event for event in world.history if events.type_of(event) in events.TERMINAL]
    assert len(ends) <= 1
    after = world.history[world.history.index(ends[0]) + 1 :] if ends else []
    assert set(names(after)) <= {"execution.rerun", "command.refused"}, "nothing changes what has ended"
    assert bool(ends) == world.state.status.terminal
    runs = [(e.step, e.attempt) for e in world.history if isinstance(e, events.StepRunning)]
    assert len(set(runs)) == len(runs), "an attempt has one owner"
    completed = [e.step for e in world.history if isinstance(e, events.StepCompleted)]
    assert completed == [f"s{number}" for number in range(len(completed))], "steps end once, in order"


@settings(max_examples=200)
@given(MOVES, st.integers(1, 3), st.randoms())
def test_any_split_of_a_history_folds_alike(
    moves: list[tuple[str, int, str]], steps: int, random: Any
) -> None:
    world = World(steps)
    for move in moves:
        world.step(move)
    whole = fold(world.history)
    cut = random.randint(0, len(world.history))
    state = fold(world.history[:cut])
    for event in world.history[cut:]:
        state = evolve(state, event)
    assert state == whole
    assert whole is not None
    assert whole.status == world.state.status
    assert [step.status for step in whole.steps] == [step.status for step in world.state.steps]
    assert [step.files for step in whole.steps] == [step.files for step in world.state.steps]
    assert whole.commands == world.state.commands


@settings(max_examples=200)
@given(MOVES)
def test_said_twice_is_said_once(moves: list[tuple[str, int, str]]) -> None:
    once, twice = World(2), World(2)
    for move in moves:
        once.step(move)
        twice.step(move, times=1 if move[0] == "time" else 2)
    assert names(twice.history) == names(once.history)


@settings(max_examples=200)
@given(MOVES, st.sampled_from(KINDS))
def test_every_command_in_every_state_is_answered_once(moves: list[tuple[str, int, str]], kind: str) -> None:
    world = World(2)
    for move in moves:
        world.step(move)
    before, wanted = world.state, command(kind, "the one")
    story = Story.on(before, "", world.now)
    commands.decide(story, wanted)
    assert {event.causation_id for event in story.events} == {wanted.command_id}
    answer = names(story.events)[-1]
    if answer == "command.refused":
        assert len(story.events) == 1
        assert story.execution.status is before.status
    else:
        assert answer == ANSWERS[kind]
        assert before.status.terminal == (kind == "rerun")
    again = Story.on(story.execution, "", world.now)
    commands.decide(again, wanted)
    assert again.execution == story.execution
    assert (again.events, again.controls, again.reruns) == ([], [], [])


@settings(max_examples=200)
@given(MOVES, MOVES)
def test_what_is_cancelled_stays_cancelled(
    before: list[tuple[str, int, str]], after: list[tuple[str, int, str]]
) -> None:
    world = World(2)
    for move in before:
        world.step(move)
    world.step(("cancel", -1, ""))
    ended = world.state
    for move in after:
        world.step(move)
    assert world.state.status is ended.status
    assert world.state.steps == ended.steps
    assert decide.next_instant(world.state) is None


@settings(max_examples=100)
@given(MOVES)
def test_a_state_survives_its_storage(moves: list[tuple[str, int, str]]) -> None:
    world = World(2)
    for move in moves:
        world.step(move)
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(world.state), type=Execution)
    assert stored == world.state


def test_steps_start_as_not_started() -> None:
    accepted = decide.accept(request(), "h", plan(3), NOW)
    assert [step.status for step in accepted.execution.steps] == [StepStatus.NOT_STARTED] * 3
    assert [order.step for order in accepted.requests] == ["s0"]
