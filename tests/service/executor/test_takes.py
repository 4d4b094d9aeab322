"""Later runs, words from takes that own nothing, and logs that were lost."""

from datetime import timedelta

import pytest

from services.executor.core.execution import Execution
from tests.service.executor.house import NOW, Desk, claim, command, job, outcome
from tests.service.executor.situations import ID, attempt, completed, pending, running, without_definition

# ---------------------------------------------------------------- later runs


def test_a_later_run_is_accepted_at_once_and_asked_for_when_due(desk: Desk) -> None:
    assert desk.say(job(run_at=NOW + timedelta(hours=1))) == ["execution.accepted"]
    assert desk.wait(3599) == []
    assert desk.wait(2) == ["step.requested"]
    assert desk.say(outcome(attempt()))[-1] == "execution.completed"


def test_a_later_run_of_a_slot_starts_when_due(desk: Desk) -> None:
    assert desk.say(job(origin="scheduled", run_at=NOW + timedelta(seconds=5))) == ["execution.accepted"]
    assert desk.wait(6) == ["execution.started", "step.requested"]


def test_a_run_at_a_past_instant_runs_now(desk: Desk) -> None:
    assert desk.say(job(run_at=NOW - timedelta(days=1))) == ["execution.accepted", "step.requested"]


def test_another_instant_is_another_request_and_none_is_the_old_hash(desk: Desk) -> None:
    desk.say(job())
    assert desk.say(job(requested_channel=None, rerun_of=None)) == []
    assert desk.say(job(run_at=NOW)) == ["job.requested.dlq"]


# ---------------------------------------------------------------- takes that own nothing


def revoked(desk: Desk) -> list[tuple[str, str | None, str | None]]:
    return [(said.reason, said.attempt_id, said.take_id) for said in desk.sent("step.control")]


def test_a_take_that_came_second_is_told_to_stop(desk: Desk) -> None:
    running(desk)
    assert desk.say(claim(attempt(), take_id="t2")) == ["step.control"]
    assert revoked(desk) == [("not_owner", attempt(), "t2")]
    assert desk.say(outcome(attempt(), take_id="t2")) == [], "it has stopped by itself"


def test_a_lost_lease_revokes_its_attempt_and_each_later_word_of_it(desk: Desk) -> None:
    running(desk)
    assert desk.wait(21) == ["step.retry_scheduled", "step.requested", "step.control"]
    assert desk.say(claim(attempt(), kind="heartbeat")) == ["step.control"]
    assert revoked(desk) == [("lease_lost", attempt(), None), ("ended", attempt(), "t1")]


def test_a_timeout_revokes_its_attempt(desk: Desk) -> None:
    pending(desk)
    assert desk.wait(86401) == ["step.failed", "execution.failed", "step.control"]
    assert revoked(desk) == [("timeout", attempt(), None)]


def test_a_worker_that_wakes_up_after_a_cancel_is_told_again(desk: Desk) -> None:
    running(desk)
    desk.say(command("cancel"))
    assert desk.say(claim(attempt(), kind="heartbeat")) == ["step.control"]
    assert revoked(desk) == [("cancelled", None, None), ("cancelled", attempt(), "t1")]


def test_late_words_of_a_take_that_ended_by_itself_need_no_answer(desk: Desk) -> None:
    running(desk)
    desk.say(outcome(attempt()))
    assert desk.say(claim(attempt(), kind="heartbeat")) == []


def test_the_first_word_owns_the_attempt_even_if_its_claim_was_lost(desk: Desk) -> None:
    pending(desk)
    assert desk.say(claim(attempt(), kind="heartbeat")) == ["execution.started", "step.running"]


# ---------------------------------------------------------------- lost logs


def again(desk: Desk, *lost: str) -> list[str]:
    state = desk.state()
    return [record.topic for record in desk.manager.reconcile(state, frozenset(lost), desk.now)]


@pytest.mark.parametrize("topic", ["step.requested", "step.progressed", "step.completed"])
def test_a_step_that_nobody_has_claimed_is_asked_for_again(desk: Desk, topic: str) -> None:
    pending(desk)
    assert again(desk, topic) == ["step.requested"]
    desk.say(claim(attempt()))
    assert again(desk, topic) == []


def test_other_logs_are_no_reason_to_ask_again(desk: Desk) -> None:
    pending(desk)
    assert again(desk, "definition.state", "execution.commands", "step.control") == []


def test_a_rerun_whose_request_was_lost_is_asked_for_again(desk: Desk) -> None:
    completed(desk)
    desk.say(command("rerun"))
    [first] = [record for record in desk.out if record.topic == "job.requested"]
    desk.wait(3600)
    assert [*desk.manager.reconcile(desk.state(), frozenset({"job.requested"}), desk.now)] == [first]


def test_what_waits_for_its_definition_has_nothing_to_reconcile(desk: Desk) -> None:
    without_definition(desk)
    parked = desk.states[ID]
    assert parked is not None
    assert not isinstance(parked, Execution)
    assert [*desk.manager.reconcile(parked, frozenset({"job.requested"}), desk.now)] == []
