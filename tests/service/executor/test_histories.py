"""Laws over random histories of pipelines, on the loop in memory: crashes, doubles, topics in any order."""

from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services import jobs
from services.contracts import events
from services.contracts.events import Event
from services.contracts.partition import partition_of
from services.contracts.topics import LOOP_PARTITIONS
from services.executor.core import admission, loads
from services.executor.core.execution import Execution, evolve, fold
from tests.service.executor.histories import World
from tests.service.executor.pipelines import Pipelines

VERBS = [
    *("turn", "turn", "turn", "claim", "done", "done", "done", "retry", "fail", "heartbeat", "part"),
    *("time", "time", "command", "command", "again", "crash", "restart"),
]
MOVES = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 999)), max_size=40)
SEEDS = st.integers(0, 2**32)
ENDS = (events.StepCompleted, events.StepFailed, events.StepSkipped)
TURNING = {"turn", "time", "crash"}
AFTER_THE_END = {"execution.rerun", "command.refused", "hook.completed", "hook.failed"}
Moves = list[tuple[str, int]]
# A history that breaks a law is told as it is: to shrink one takes longer than to read it.
UNSHRUNK = settings(
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def pipelines() -> Iterator[Pipelines]:
    found = Pipelines()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "JOB_TYPES", {**jobs.JOB_TYPES, "pipeline": found})
        yield found


@settings(UNSHRUNK, max_examples=200)
@given(moves=MOVES, seed=SEEDS)
def test_any_history_is_legal_and_ends(pipelines: Pipelines, moves: Moves, seed: int) -> None:
    check(pipelines, moves, seed)


@pytest.mark.faults
@pytest.mark.parametrize("part", range(20))
@settings(UNSHRUNK, max_examples=500)
@given(moves=MOVES, seed=SEEDS)
def test_ten_thousand_histories_are_legal_and_end(
    pipelines: Pipelines, moves: Moves, seed: int, part: int
) -> None:
    """In parts, none of which is taken for one that hangs."""
    check(pipelines, moves, seed)


def check(pipelines: Pipelines, moves: Moves, seed: int) -> None:
    """Run a history, then let it end, and hold it against the laws."""
    world = World(pipelines, seed)
    for verb, pick in moves:
        _nothing_new_after_the_end(world, verb, pick)
        _within_bounds(world)
    world.drain()
    assert not any(book.holders or book.waiters for book in world.books.values()), "no permit is left behind"
    states = world.executions()
    assert world.wanted.execution_id in {state.execution_id for state in states}
    for state in states:
        history = world.history(state.execution_id)
        _legal(history, state)
        _folds(history, state, seed)
    _answered(world)
    assert _reasons(world) <= {"unknown_attempt"}


def _reasons(world: World) -> set[str]:
    """Why records were dead-lettered: a late word on an action long forgotten is a stranger's."""
    topics = (topic for topic in world.broker.topics if topic.endswith(".dlq"))
    letters = (record for topic in topics for record in world.broker.records(topic))
    return {dict(record.headers)["ms_reason"].decode() for record in letters}


def _nothing_new_after_the_end(world: World, verb: str, pick: int) -> None:
    """No attempt is created after a terminal event."""
    if verb not in TURNING:
        world.move(verb, pick)
        return
    ended = {state.execution_id for state in world.executions() if state.status.terminal}
    before = {order.attempt_id for order in world.orders()} | {
        # Committed, not yet produced: the next owner publishes it.
        state.attempt_id(index)
        for state in world.executions()
        for index in range(len(state.steps) + len(state.hooks))
    }
    world.move(verb, pick)
    for order in world.orders():
        assert order.execution_id not in ended or order.attempt_id in before


def _within_bounds(world: World) -> None:
    """No more first attempts of an index's steps are out than its window, no more executions hold a permit
    than there are."""
    out: Counter[tuple[int, int]] = Counter()
    for state in world.executions():
        index = partition_of(state.execution_id.encode(), LOOP_PARTITIONS)
        for step in () if state.status.terminal else state.steps:
            if step.current and step.queued_since is None and not admission.had_its_turn(step):
                out[index, loads.lane_of(step.plan.kind)] += 1
    assert all(count <= world.windows[lane] for (_, lane), count in out.items())
    assert all(len(book.holders) <= 1 for book in world.books.values())


def _legal(history: list[Event], state: Execution) -> None:
    assert [event.sequence for event in history] == list(range(1, state.sequence + 1)), "dense, and all told"
    names = [events.type_of(event) for event in history]
    ends = [place for place, name in enumerate(names) if name in events.TERMINAL]
    assert len(ends) == 1
    assert set(names[ends[0] + 1 :]) <= AFTER_THE_END, "terminal absorbs"
    runs = [(event.step, event.attempt) for event in history if isinstance(event, events.StepRunning)]
    assert len(set(runs)) == len(runs), "an attempt has one owner"
    ended = [(event.step, event.attempt) for event in history if isinstance(event, ENDS) and event.attempt]
    assert len(set(ended)) == len(ended), "and one end"
    assert not any(hook.retry_at for hook in state.hooks), "nothing is tried again after the end"
    _nothing_begins_in_a_pause(history)
    assert state.runs <= 6 + len(state.steps), "loops are bounded"


def _nothing_begins_in_a_pause(history: list[Event]) -> None:
    paused, before = False, None
    for event in history:
        if isinstance(event, events.ExecutionWaiting | events.ExecutionResumed) and event.reason == "paused":
            paused = isinstance(event, events.ExecutionWaiting)
        asked_anew = isinstance(before, events.ExecutionAmended)
        assert not (paused and isinstance(event, events.StepWaiting)) or asked_anew
        before = event


def _folds(history: list[Event], state: Execution, seed: int) -> None:
    """The history alone says what the state says, however it is cut."""
    whole, cut = fold(history), seed % (len(history) + 1)
    part = fold(history[:cut])
    for event in history[cut:]:
        part = evolve(part, event)
    assert part == whole
    assert whole is not None
    for field in ("status", "sequence", "commands", "error", "runs", "paused", "waiting", "ends_at"):
        assert getattr(whole, field) == getattr(state, field), field
    told = [(step.status, step.output, step.files) for step in whole.steps]
    assert told == [(step.status, step.output, step.files) for step in state.steps]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Execution) == state


def _answered(world: World) -> None:
    """Every command has its answer, in one piece, however often it was given."""
    told: dict[str, list[int]] = {}
    for state in world.executions():
        for event in world.history(state.execution_id):
            told.setdefault(event.causation_id, []).append(event.sequence)
    for command in world.commands:
        answers = told.get(command.command_id, [])
        assert answers, command
        assert answers == list(range(answers[0], answers[-1] + 1)), "once"
