"""What the manager makes of commands, of later runs, and of words from takes that own nothing."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from services.contracts import envelope, events, ids
from services.contracts.commands import (
    Command,
    DefinitionState,
    ExecutionCommand,
    JobRequested,
    StepControl,
)
from services.contracts.status import Status, StepStatus
from services.executor.core.execution import COMMANDS_MAX
from services.executor.manager import EARLY_COMMANDS_MAX
from services.runtime.schemas import codec
from tests.service.executor.house import NOW, TENANT, Desk, House, claim, command, job, outcome
from tests.service.executor.situations import (
    EXPORT,
    FILE,
    ID,
    asked_again,
    attempt,
    cancelled,
    completed,
    failed,
    later,
    pending,
    rejected,
    retry_pending,
    running,
    without_definition,
)

DATASET = DefinitionState(
    kind="dataset",
    tenant=TENANT,
    id="parcels",
    revision=1,
    changed_at=NOW,
    deleted=False,
    body={"source": "depot", "table": "public.parcels", "columns": [{"name": "id", "type": "integer"}]},
)

Given = Callable[[Desk], None]
LIVE: tuple[Given, ...] = (pending, running, retry_pending, asked_again, later, without_definition)
ENDED: tuple[Given, ...] = (completed, failed, cancelled, rejected)

# ---------------------------------------------------------------- cancel


@pytest.mark.parametrize("given", LIVE)
def test_a_live_execution_is_cancelled_and_nothing_revives_it(desk: Desk, given: Given) -> None:
    given(desk)
    wanted = command("cancel", reason="no longer needed")
    told = [name for name in desk.say(wanted) if name != "execution.accepted"]
    planned = given is not without_definition
    assert told[: 1 + planned] == ["step.cancelled"] * planned + ["execution.cancelled"]
    ended = desk.history(ID)[-1]
    assert isinstance(ended, events.ExecutionCancelled)
    assert (ended.reason, ended.requested_by) == ("no longer needed", "alice")
    assert ended.causation_id == wanted.command_id
    state = desk.state()
    assert state.status is Status.CANCELLED
    assert all(step.status is StepStatus.CANCELLED for step in state.steps)
    before = len(desk.out)
    late = (outcome(attempt(1)), outcome(attempt(2)), claim(attempt(1)))
    for said in (wanted, *(s for s in late if state.step_of(s.attempt_id) is not None), DATASET):
        desk.say(said)
    desk.wait(2 * 86400)
    assert {record.topic for record in desk.out[before:]} <= {"step.control"}
    assert desk.state() == state


@pytest.mark.parametrize("given", [pending, running, retry_pending, asked_again])
def test_a_cancelled_execution_is_revoked_whole(desk: Desk, given: Given) -> None:
    given(desk)
    desk.say(command("cancel"))
    control = desk.sent("step.control")[-1]
    assert control == StepControl(
        execution_id=ID, tenant=TENANT, kind="revoke", reason="cancelled", issued_at=control.issued_at
    )


@pytest.mark.parametrize("given", [later, without_definition])
def test_what_was_never_asked_for_needs_no_revocation(desk: Desk, given: Given) -> None:
    given(desk)
    desk.say(command("cancel"))
    assert desk.sent("step.control") == []


def test_the_cancelled_step_tells_which_attempt_was_out(desk: Desk) -> None:
    asked_again(desk)
    desk.say(command("cancel"))
    told = [event for event in desk.history(ID) if isinstance(event, events.StepCancelled)]
    assert [(event.step, event.attempt, event.reason) for event in told] == [("noop", 2, "cancelled")]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("given", ENDED)
def test_what_has_ended_cannot_be_cancelled(desk: Desk, given: Given) -> None:
    given(desk)
    before = desk.state()
    assert desk.say(command("cancel")) == ["command.refused"]
    refused = desk.history(ID)[-1]
    assert isinstance(refused, events.CommandRefused)
    assert (refused.command, refused.reason) == ("cancel", "already_ended")
    assert str(before.status) in refused.message
    assert refused.causation_id == command("cancel").command_id
    assert desk.state().status is before.status
    assert desk.say(command("cancel")) == [], "answered once"
    assert desk.say(command("cancel", key="2")) == ["command.refused"]


@pytest.mark.parametrize("given", LIVE[:-1])
def test_what_has_not_ended_cannot_be_run_again(desk: Desk, given: Given) -> None:
    given(desk)
    assert desk.say(command("rerun")) == ["command.refused"]
    refused = desk.history(ID)[-1]
    assert isinstance(refused, events.CommandRefused)
    assert refused.reason == "not_ended"


def test_an_unknown_command_is_refused_by_name(desk: Desk) -> None:
    pending(desk)
    assert desk.say(command("explode")) == ["command.refused"]
    refused = desk.history(ID)[-1]
    assert isinstance(refused, events.CommandRefused)
    assert (refused.command, refused.reason, refused.message) == (
        "explode",
        "unknown_command",
        "expected one of amend, approve, cancel, pause, reject, remark, rerun, resume, start",
    )


def test_an_execution_remembers_a_thousand_commands_and_refuses_more(desk: Desk) -> None:
    pending(desk)
    for number in range(COMMANDS_MAX):
        desk.say(command("rerun", key=str(number)))
    assert desk.say(command("rerun", key="more")) == ["command.refused"]
    refused = desk.history(ID)[-1]
    assert isinstance(refused, events.CommandRefused)
    assert refused.reason == "too_many_commands"
    assert len(desk.state().commands) == COMMANDS_MAX
    assert "execution.cancelled" in desk.say(command("cancel")), "what runs can always be stopped"
    assert desk.say(command("cancel")) == []


# ---------------------------------------------------------------- commands that come early


def letters(desk: Desk) -> list[tuple[str, str, bytes | None]]:
    found = [(dict(r.headers), r.value) for r in desk.out if r.topic == "execution.commands.dlq"]
    return [(h["ms_reason"].decode(), h["ms_error"].decode(), value) for h, value in found]


def test_a_command_that_comes_before_its_request_is_kept_for_it(desk: Desk) -> None:
    assert desk.say(command("cancel")) == []
    desk.wait(59)
    told = desk.say(job())
    assert told[:3] == ["execution.accepted", "step.cancelled", "execution.cancelled"]
    assert set(told[3:]) == {"step.requested", "step.control"}
    desk.wait(3600)
    assert letters(desk) == []


def test_the_wait_for_a_definition_does_not_lose_a_command(desk: Desk) -> None:
    assert desk.say(EXPORT) == []
    assert desk.say(command("rerun")) == []
    assert desk.wait(60) == ["execution.rejected", "command.refused", "job.requested.dlq"]


def test_a_command_for_nobody_is_a_dead_letter_after_a_minute(desk: Desk) -> None:
    wanted = command("cancel")
    desk.say(wanted)
    assert desk.wait(59) == []
    assert desk.wait(2) == ["execution.commands.dlq"]
    [(reason, message, value)] = letters(desk)
    assert (reason, message) == ("unknown_execution", f"no execution {ID} within 60 s")
    assert value == codec().encode(wanted)
    assert desk.states[ID] is None
    assert desk.say(job()) == ["execution.accepted", "step.requested"], "the request may still come"


def test_only_so_many_commands_wait(desk: Desk) -> None:
    for number in range(EARLY_COMMANDS_MAX + 1):
        desk.say(command("cancel", key=str(number)))
    assert [reason for reason, _, _ in letters(desk)] == ["too_many_commands"]


def test_only_so_many_bytes_of_commands_wait(desk: Desk) -> None:
    for number in range(5):
        desk.say(command("amend", key=str(number), values={"note": "x" * 250_000}))
    [(reason, message, _)] = letters(desk)
    assert reason == "too_many_commands"
    assert "expected at most 100, and 1048576 bytes in all" in message


@pytest.mark.parametrize("early", [True, False])
def test_the_command_of_another_tenant_changes_nothing(desk: Desk, early: bool) -> None:
    forged = command("cancel", tenant="rival")
    said: list[Command] = [forged, job()] if early else [job(), forged]
    for record in said:
        desk.say(record)
    assert [reason for reason, _, _ in letters(desk)] == ["tenant_mismatch"]
    assert desk.state().status is Status.PENDING
    assert [events.type_of(event) for event in desk.history(ID)] == ["execution.accepted"]


def test_the_command_of_another_tenant_does_not_end_the_wait_for_a_definition(desk: Desk) -> None:
    desk.say(EXPORT)
    desk.say(command("cancel", tenant="rival"))
    assert [reason for reason, _, _ in letters(desk)] == ["tenant_mismatch"]
    assert desk.history(ID) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"command_id": "x"}, "bad_name"),
        ({"requested_by": "a\0b"}, "bad_name"),
        ({"kind": "rerun", "rerun_id": None}, "bad_name"),
        ({"kind": "rerun", "rerun_id": "../x"}, "bad_name"),
        ({"execution_id": "42"}, "bad_id"),
        ({"reason": "x" * 20_000}, "too_large"),
    ],
)
def test_a_malformed_command_is_a_dead_letter(desk: Desk, changes: dict[str, Any], reason: str) -> None:
    pending(desk)
    assert desk.say(replace(command("cancel"), **changes)) == ["execution.commands.dlq"]
    assert [found for found, _, _ in letters(desk)] == [reason]


# ---------------------------------------------------------------- rerun


def asked_by(desk: Desk) -> JobRequested:
    wanted = desk.sent("job.requested")[-1]
    assert isinstance(wanted, JobRequested)
    return wanted


def run_again(desk: Desk, wanted: ExecutionCommand) -> list[str]:
    """Give the command, and hand in the request that it leads to."""
    assert desk.say(wanted) == ["execution.rerun", "job.requested"]
    return desk.say(asked_by(desk))


@pytest.mark.parametrize("given", [completed, failed, cancelled])
def test_a_rerun_is_a_new_execution_that_names_the_old_one(desk: Desk, given: Given) -> None:
    given(desk)
    before = desk.state()
    assert run_again(desk, command("rerun")) == ["execution.accepted", "step.requested"]
    told = desk.history(ID)[-1]
    assert isinstance(told, events.ExecutionRerun)
    assert (told.rerun_id, told.requested_by) == (ids.rerun_id(ID, 1), "alice")
    assert desk.state().status is before.status
    new = asked_by(desk)
    assert (new.execution_id, new.rerun_of, new.created_by, new.origin) == (
        told.rerun_id,
        ID,
        "alice",
        "manual",
    )
    assert (new.parameters, new.name, new.run_at) == (job().parameters, job().name, None)
    assert desk.say(command("rerun")) == []
    assert desk.say(new) == []


def test_what_was_rejected_is_not_run_again(desk: Desk) -> None:
    rejected(desk)
    assert desk.say(command("rerun")) == ["command.refused"]


def test_a_rerun_keeps_the_revision_it_was_pinned_to(desk: Desk) -> None:
    desk.say(DATASET)
    desk.say(EXPORT)
    desk.say(command("cancel"))
    desk.say(replace(DATASET, revision=2, body={}))
    assert run_again(desk, command("rerun"))[0] == "execution.accepted"
    assert asked_by(desk).definition.revision == 1  # type: ignore[union-attr]


def test_results_of_the_original_are_taken_over(desk: Desk) -> None:
    completed(desk)
    told = run_again(desk, command("rerun", reuse_results=True))
    assert told == [
        "execution.accepted",
        "execution.started",
        "step.completed",
        "file.published",
        "execution.completed",
    ]
    assert desk.state(asked_by(desk)).steps[0].files == (FILE,)


def test_what_the_original_did_not_complete_is_run(desk: Desk) -> None:
    failed(desk)
    told = run_again(desk, command("rerun", reuse_results=True))
    assert told == ["execution.accepted", "step.requested"]


def test_nobody_takes_over_results_of_another_tenant(desk: Desk) -> None:
    completed(desk)
    thief = replace(job("theft"), tenant="rival", rerun_of=ID, reuse_results=True)
    assert desk.say(thief) == ["execution.accepted", "step.requested"]


def test_results_are_reused_of_something_and_at_once(desk: Desk) -> None:
    desk.say(job(reuse_results=True, run_at=NOW))
    [told] = desk.history(ID)
    assert isinstance(told, events.ExecutionRejected)
    assert [error.pointer for error in told.errors] == ["rerun_of", "run_at"]


# ---------------------------------------------------------------- in any order

WORDS: tuple[Command, ...] = (
    EXPORT,
    DATASET,
    command("cancel"),
    command("rerun", reuse_results=True),
    command("cancel", key="2"),
    command("cancel", tenant="rival"),
    claim(ids.attempt_id(ID, "export", 1)),
    claim(ids.attempt_id(ID, "export", 1), take_id="t2", kind="heartbeat"),
    outcome(ids.attempt_id(ID, "export", 1), files=(FILE,)),
    outcome(ids.attempt_id(ID, "export", 1), outcome="retry", reason="r", message="m"),
    claim(ids.attempt_id(ID, "export", 2)),
    outcome(ids.attempt_id(ID, "export", 2)),
)
MOVES = st.lists(st.tuples(st.integers(0, len(WORDS) - 1), st.integers(0, 40)), max_size=25)


def played(moves: list[tuple[int, int]], times: int) -> Desk:
    desk = Desk()
    for pick, seconds in moves:
        for _ in range(times):
            desk.say(WORDS[pick])
        desk.wait(seconds)
    desk.wait(90)
    return desk


@settings(max_examples=150)
@drawn(MOVES)
def test_records_in_any_order_said_twice_are_said_once(moves: list[tuple[int, int]]) -> None:
    once, twice = played(moves, 1), played(moves, 2)
    assert twice.states == once.states
    assert twice.history(ID) == once.history(ID)
    told = {event.causation_id for event in once.history(ID)}
    given_up = len(letters(once))
    for wanted in [WORDS[pick] for pick, _ in moves if pick in (2, 3, 4)]:
        assert isinstance(wanted, ExecutionCommand)
        assert wanted.command_id in told or given_up, "every command has its answer"


def test_a_command_reaches_the_manager_through_the_loop() -> None:
    house = House()
    house.say(job())
    house.say(command("cancel"))
    house.turn()
    assert house.names(ID)[-1] == "execution.cancelled"
    assert [dict(r.headers)["ce_id"] for r in house.broker.records("step.control")] == [
        f"revoke-{ID}".encode()
    ]
    assert envelope.command(command("cancel"), b"").topic == "execution.commands"


@pytest.mark.parametrize("run_at", [None, NOW + timedelta(hours=1)])
def test_a_held_request_that_is_started_and_cancelled_before_its_definition_is_cancelled(
    desk: Desk, run_at: datetime | None
) -> None:
    without = job(job_type="pipeline", definition_id="orders", hold=True, run_at=run_at)
    assert desk.say(without) == []
    desk.say(command("start", without))
    told = desk.say(command("cancel", without, key="2"))
    assert told == ["execution.accepted", "execution.started", "execution.cancelled"]
