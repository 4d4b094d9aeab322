"""The projector: events in any order and number give the same rows; what it cannot read it counts as seen."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.api.core.projection import Projection, decode, encode, waiting_json
from services.api.core.steps import HISTORY_MAX
from services.api.projector import PARKED_MAX, Projector
from services.contracts import commands, events, ids
from services.contracts.events import Event, PlannedStep
from services.contracts.status import Status, StepStatus
from services.runtime import schemas
from services.runtime.processor.types import Input, Poison, Row

ID = "ab" * 20
AT = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
CODEC = schemas.codec()


def facts(sequence: int) -> dict[str, Any]:
    return {
        "event_id": ids.event_id(ID, sequence),
        "execution_id": ID,
        "tenant": "acme",
        "sequence": sequence,
        "occurred_at": AT,
        "causation_id": "c",
        "correlation_id": ID,
    }


REQUEST = commands.JobRequested(
    execution_id=ID, tenant="acme", requested_at=AT, created_by="alice", name="n", job_type="export"
)
PLAN = (PlannedStep(name="export", kind="EXPORT", parameters={}, timeout_s=9, max_attempts=5),)
FILE = commands.File(name="a.csv", key="k", batch="a", rows=3, bytes=30, sha256="s", content_type="text/csv")
STORY: tuple[Event, ...] = (
    events.ExecutionAccepted(**facts(1), request=REQUEST, request_hash="h", plan=PLAN),
    events.ExecutionStarted(**facts(2)),
    events.StepRunning(**facts(3), step="export", attempt=1, take_id="t1", worker="w1"),
    events.StepProgressed(**facts(4), step="export", attempt=1, files=1, rows=9, bytes=90, detail="a.csv"),
    events.StepRetryScheduled(
        **facts(5), step="export", attempt=1, reason="source_away", message="m", retry_at=AT
    ),
    events.StepRunning(**facts(6), step="export", attempt=2, take_id="t2", worker="w2"),
    events.StepProgressed(**facts(7), step="export", attempt=2, files=1, rows=3, bytes=30, detail="a.csv"),
    events.StepCompleted(**facts(8), step="export", attempt=2, output={}),
    events.FilePublished(**facts(9), step="export", file=FILE),
    events.ExecutionCompleted(**facts(10), files=1, rows=3, bytes=30),
)


def record(event: Event) -> Input:
    return Input("execution.events", 0, 0, ID.encode(), CODEC.encode(event))


def damaged(sequence: int) -> Input:
    return Input(
        "execution.events", 0, 0, ID.encode(), b"\0\0\0\0", (("ms_sequence", str(sequence).encode()),)
    )


def fold(inputs: list[Input]) -> tuple[Projection, list[Row], list[Poison]]:
    """What the loop would keep, write and dead-letter; the state goes through its bytes each time."""
    projector = Projector(CODEC)
    state: Projection | None = None
    rows: list[Row] = []
    dead: list[Poison] = []
    for given_ in inputs:
        routed = projector.route(given_)
        assert routed is not None
        change = projector.apply(routed, state, {}, given_, AT)
        assert change.state is not None
        state = decode(encode(change.state))
        rows += change.rows
        if change.dead is not None:
            dead.append(change.dead)
    assert state is not None
    return state, rows, dead


def sequences(rows: list[Row]) -> list[int]:
    return [row.values["sequence"] for row in rows if row.kind == "event"]


IN_ORDER = fold([record(event) for event in STORY])[0]


def test_a_story() -> None:
    assert (IN_ORDER.status, IN_ORDER.sequence, IN_ORDER.incomplete) == (Status.COMPLETED, 10, False)
    assert (IN_ORDER.principal, IN_ORDER.job_type, IN_ORDER.submitted_at) == ("alice", "export", AT)
    (step,) = IN_ORDER.steps
    assert (step.status, step.attempt, step.worker, step.rows) == (StepStatus.COMPLETED, 2, "w2", 3)
    assert [(mark.status.value, mark.attempt) for mark in step.history] == [
        ("Not Started", 0),
        ("Running", 1),
        ("Running", 2),
        ("Completed", 2),
    ]
    assert (IN_ORDER.files, IN_ORDER.rows, IN_ORDER.bytes) == (1, 3, 30)


def test_a_cancelled_execution_and_its_reruns() -> None:
    cause = {**facts(5), "causation_id": "command"}
    story: list[Event] = [
        *STORY[:3],
        events.StepCancelled(**facts(4), step="export", attempt=1, reason="cancelled"),
        events.ExecutionCancelled(**cause, requested_by="bob", reason=None),
        events.ExecutionRerun(**facts(6), rerun_id="f" * 40, requested_by="bob"),
        events.CommandRefused(
            **facts(7), command="cancel", requested_by="bob", reason="already_ended", message="m"
        ),
        events.ExecutionRerun(**facts(8), rerun_id="e" * 40, requested_by="bob"),
    ]
    state, rows, _ = fold([record(event) for event in story])
    assert (state.status, state.sequence, state.reruns) == (Status.CANCELLED, 8, ("f" * 40, "e" * 40))
    assert (state.steps[0].status, state.steps[0].reason) == (StepStatus.CANCELLED, "cancelled")
    answers = [(row.values["command_id"], row.values["answer"]) for row in rows if row.kind == "answer"]
    assert answers == [
        ("command", "execution.cancelled"),
        ("c", "execution.rerun"),
        ("c", "command.refused"),
        ("c", "execution.rerun"),
    ]


@given(st.integers(0, 2**32), st.lists(st.sampled_from(STORY), max_size=10))
def test_order_and_duplicates_change_nothing(seed: int, again: list[Event]) -> None:
    shuffled = [*STORY, *again]
    random.Random(seed).shuffle(shuffled)
    state, rows, _ = fold([record(event) for event in shuffled])
    assert state == IN_ORDER
    assert sequences(rows) == list(range(1, 11))


def test_a_gap_parks_what_follows() -> None:
    state, rows, _ = fold([record(event) for event in (*STORY[:2], *STORY[4:7])])
    assert (state.sequence, sorted(state.parked)) == (2, [5, 6, 7])
    assert sequences(rows) == [1, 2]
    assert [row.values["count"] for row in rows if row.kind == "parked"] == [1, 2, 3]


def test_a_gap_that_never_fills_is_given_up_at_the_bound() -> None:
    def progressed(sequence: int) -> Event:
        return events.StepProgressed(
            **facts(sequence), step="export", attempt=1, files=0, rows=sequence, bytes=0, detail=None
        )

    inputs = [record(STORY[0])] + [record(progressed(n)) for n in range(3, PARKED_MAX + 4)]
    state, rows, _ = fold(inputs)
    assert (state.sequence, state.incomplete, state.parked) == (PARKED_MAX + 3, True, {})
    assert sequences(rows) == [1, *range(3, PARKED_MAX + 4)]


@pytest.mark.parametrize("missing", [1, 5, 10])
def test_an_event_that_cannot_be_read_counts_as_seen(missing: int) -> None:
    inputs = [damaged(e.sequence) if e.sequence == missing else record(e) for e in STORY]
    state, rows, dead = fold(inputs)
    assert (state.sequence, state.incomplete) == (10, True)
    assert sequences(rows) == [n for n in range(1, 11) if n != missing]
    assert [poison.reason for poison in dead] == ["undecodable"]
    assert fold([*reversed(inputs)])[0] == state


def test_nothing_is_written_before_the_tenant_is_known() -> None:
    _, rows, _ = fold([damaged(1)])
    assert rows == []


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        (Input("execution.events", 0, 0, ID.encode(), b"\0\0\0\0"), "undecodable"),
        (Input("execution.events", 0, 0, b"x", None, (("ms_sequence", b"1"),)), "undecodable"),
        (Input("execution.events", 0, 0, ID.encode(), b"", (("ms_sequence", b"9" * 5000),)), "undecodable"),
        (Input("execution.events", 0, 0, ID.encode(), b"", (("ms_sequence", b"0"),)), "undecodable"),
        (Input("execution.events", 0, 0, b"cd" * 20, CODEC.encode(STORY[1])), "key_mismatch"),
        (Input("execution.events", 0, 0, ID.encode(), CODEC.encode(REQUEST)), "undecodable"),
    ],
    ids=["no sequence", "bad key", "endless sequence", "sequence 0", "another key", "a command"],
)
def test_what_cannot_be_placed_is_poison(given_: Input, reason: str) -> None:
    with pytest.raises(Poison) as caught:
        Projector(CODEC).route(given_)
    assert caught.value.reason == reason


def test_the_row_of_an_event_shows_no_secret() -> None:
    sealed = commands.Callback(events=(), url="https://x", headers={"A": "sealed:v1:h"}, secret="sealed:v1:s")
    request = commands.JobRequested(
        execution_id=ID,
        tenant="acme",
        requested_at=AT,
        created_by="alice",
        name="n",
        job_type="noop",
        headers={"Cookie": "sealed:v1:c"},
        callbacks=(sealed,),
    )
    story = events.ExecutionAccepted(**facts(1), request=request, request_hash="h", plan=PLAN)
    _, rows, _ = fold([record(story)])
    assert "sealed:" not in "".join(str(row.values) for row in rows)


def planned(name: str, kind: str = "API") -> PlannedStep:
    return PlannedStep(name=name, kind=kind, parameters={}, timeout_s=9, max_attempts=5, flow={})


ASKED = replace(
    REQUEST,
    job_type="pipeline",
    parameters={"values": {"to": "x"}, "time_range": None},
    owner="ada",
    hold=True,
)
PIPELINE: tuple[Event, ...] = (
    events.ExecutionAccepted(
        **facts(1), request=ASKED, request_hash="h", plan=(planned("ask", "WAIT_FOR_APPROVAL"), planned("do"))
    ),
    events.ExecutionStarted(**{**facts(2), "causation_id": "start"}),
    events.StepWaiting(
        **facts(3),
        step="ask",
        attempt=1,
        reason="approval",
        until=AT,
        content_hash="c1",
        detail={"approvers": ["bob"]},
    ),
    events.ExecutionWaiting(**facts(4), reason="approval", step="ask", until=AT),
    events.ApprovalRemarked(**facts(5), step="ask", remarked_by="eve", remark="hm"),
    events.ApprovalDecided(
        **facts(6),
        step="ask",
        decision="approved",
        decided_by="bob",
        owner=None,
        reason=None,
        form={"n": 1},
        content_hash="c1",
        approvals=1,
        quorum=1,
    ),
    events.ExecutionResumed(**facts(7), reason="approval"),
    events.StepCompleted(**facts(8), step="ask", attempt=1, output={}),
    events.HookFailed(
        **facts(9), step="ask", hook="Logger:success", on="success", attempt=3, reason="r", message="m"
    ),
    events.StepSkipped(**facts(10), step="do", attempt=0, reason="condition"),
    events.ExecutionCompleted(**facts(11), files=0, rows=0, bytes=0),
)


def words(rows: list[Row]) -> list[tuple[int, str, str, int]]:
    return [
        (v["sequence"], v["step_name"], v["event_type"], v["attempt"])
        for v in (row.values for row in rows if row.kind == "word")
    ]


def test_a_service_request_with_an_approval() -> None:
    state, rows, _ = fold([record(event) for event in PIPELINE])
    assert (state.status, state.owner, state.form, state.waiting) == (
        Status.COMPLETED,
        "ada",
        {"to": "x"},
        None,
    )
    assert [(word.decision, word.by, word.remark) for word in state.approvals] == [
        ("remarked", "eve", "hm"),
        ("approved", "bob", None),
    ]
    assert [(hook.hook, hook.reason) for hook in state.hooks] == [("Logger:success", "r")]
    assert words(rows) == [
        (1, "ask", "Not Started", 0),
        (1, "do", "Not Started", 0),
        (3, "ask", "Running", 1),
        (8, "ask", "Completed", 1),
        (10, "do", "Cancelled", 0),
    ]


def test_what_it_waits_for_is_told_while_it_waits() -> None:
    noon = "2026-01-01T12:00:00Z"
    asked = {"step": "ask", "reason": "approval", "since": noon, "until": noon, "content_hash": "c1"}
    detail = {"detail": {"approvers": ["bob"]}, "not_by": ["alice", "ada"]}
    before = fold([record(event) for event in PIPELINE[:3]])[0]
    assert waiting_json(before) == {
        "reason": None,
        "step": None,
        "until": None,
        "approval": {**asked, **detail},
    }
    state = fold([record(event) for event in PIPELINE[:4]])[0]
    assert state.status is Status.WAITING
    assert waiting_json(state) == {
        "reason": "approval",
        "step": "ask",
        "until": "2026-01-01T12:00:00Z",
        "approval": {**asked, **detail},
    }
    assert waiting_json(fold([record(event) for event in PIPELINE[:8]])[0]) is None


def test_one_that_is_to_begin_later_says_what_it_waits_for() -> None:
    def begun(hold: bool, *more: Event) -> Any:
        asked = replace(REQUEST, hold=hold, run_at=AT)
        accepted = events.ExecutionAccepted(**facts(1), request=asked, request_hash="h", plan=PLAN)
        return waiting_json(decode(encode(fold([record(event) for event in (accepted, *more)])[0])))

    unsaid = {"step": None, "approval": None}
    assert begun(True) == {"reason": "start", "until": None, **unsaid}
    assert begun(False) == {"reason": "run_at", "until": "2026-01-01T12:00:00Z", **unsaid}
    assert begun(True, events.ExecutionStarted(**facts(2))) is None
    assert begun(True, events.ExecutionCancelled(**facts(2), requested_by="a", reason=None)) is None


def test_an_amendment_brings_other_values_and_keeps_what_has_begun() -> None:
    amended = events.ExecutionAmended(
        **facts(5),
        requested_by="alice",
        parameters={"values": {"to": "y"}, "time_range": None},
        plan=(planned("ask", "WAIT_FOR_APPROVAL"), planned("do"), planned("more")),
    )
    state, rows, _ = fold([record(event) for event in (*PIPELINE[:4], amended)])
    assert (state.form, [step.name for step in state.steps]) == ({"to": "y"}, ["ask", "do", "more"])
    assert state.steps[0].status is StepStatus.RUNNING
    assert words(rows)[-1] == (5, "more", "Not Started", 0)


@given(st.integers(0, 2**32), st.lists(st.sampled_from(PIPELINE), max_size=10))
def test_words_are_the_same_in_any_order(seed: int, again: list[Event]) -> None:
    shuffled = [*PIPELINE, *again]
    random.Random(seed).shuffle(shuffled)
    _, rows, _ = fold([record(event) for event in shuffled])
    assert words(rows) == words(fold([record(event) for event in PIPELINE])[1])


def test_a_step_that_is_come_back_to_runs_again() -> None:
    again: list[Event] = [
        *STORY[:3],
        events.StepCompleted(**facts(4), step="export", attempt=1, output={}),
        events.StepRunning(**facts(5), step="export", attempt=2, take_id="t2", worker="w1"),
    ]
    _, rows, _ = fold([record(event) for event in again])
    assert [word for _, _, *word in words(rows)] == [
        ["Not Started", 0],
        ["Running", 1],
        ["Completed", 1],
        ["Running", 2],
    ]


def test_a_loop_keeps_its_newest_words_and_tells_every_one() -> None:
    turns = 2 * HISTORY_MAX
    story: list[Event] = [
        *STORY[:2],
        *(
            events.StepRunning(**facts(3 + turn), step="export", attempt=turn + 1, take_id="t", worker="w")
            for turn in range(turns)
        ),
    ]
    state, rows, _ = fold([record(event) for event in story])
    assert (len(state.steps[0].history), state.steps[0].history[-1].attempt) == (HISTORY_MAX, turns)
    assert len(words(rows)) == 1 + turns
