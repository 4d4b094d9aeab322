"""Approvals through the manager: who may decide, on what, how often, until when."""

from typing import Any

import pytest

from services.contracts import events, ids, public
from services.contracts.status import Status, StepStatus
from tests.service.executor.house import claim, outcome
from tests.service.executor.pipelines import ID, Runner, approval, call, chain, goto, request, step

REFUSED = ["command.refused"]
APPROVED = ["approval.decided", "step.completed", "execution.resumed", "step.requested"]
REJECTED = ["approval.decided", "step.failed", "execution.failed"]


def waiting(runner: Runner, **parameters: Any) -> None:
    """A request of the shop, whose key belongs to bob, waits for an approval."""
    runner.start(*chain(approval(**parameters), step("b")), owner="bob")


def refused(runner: Runner, reason: str) -> None:
    """Nothing happened, for this reason, and nothing was asked for."""
    before = runner.desk.history(ID)[-1]
    assert isinstance(before, events.CommandRefused)
    assert before.reason == reason
    assert runner.asked() == []


def asked_for(runner: Runner) -> events.StepWaiting:
    """What the approvers were asked for, at last."""
    found = [event for event in runner.desk.history(ID) if isinstance(event, events.StepWaiting)]
    return found[-1]


# ---------------------------------------------------------------- who


@pytest.mark.parametrize(
    ("by", "owner"),
    [("shop", None), ("bob", None), ("bobs-other-key", "bob"), ("bot", "shop"), ("Bob", None), ("b", "ＢOB")],
    ids=["self", "owner", "own key", "own bot", "in another case", "in another form of Unicode"],
)
def test_nobody_approves_their_own_request(runner: Runner, by: str, owner: str | None) -> None:
    waiting(runner)
    assert runner.tell("approve", by, owner=owner, role="admin") == REFUSED
    refused(runner, "self_approval")


def test_nobody_approves_their_own_request_though_named(runner: Runner) -> None:
    waiting(runner, approvers=["bob", "alice"])
    assert runner.tell("approve", "bob") == REFUSED
    refused(runner, "self_approval")


def test_whoever_is_named_is_named_as_they_are_written(runner: Runner) -> None:
    """A person's names are one where something is forbidden, and not where something is allowed."""
    waiting(runner, approvers=["Alice"], groups=["Finance"])
    assert runner.tell("approve", "alice", groups=("finance",)) == REFUSED
    refused(runner, "not_an_approver")


def test_whoever_asked_may_still_reject(runner: Runner) -> None:
    waiting(runner)
    assert runner.tell("reject", "bob", reason="typed it wrong") == REJECTED


def test_a_stranger_is_no_approver(runner: Runner) -> None:
    waiting(runner, approvers=["alice"], groups=["finance"])
    assert runner.tell("approve", "mallory", role="admin", groups=("sales",)) == REFUSED
    refused(runner, "not_an_approver")
    assert runner.tell("reject", "mallory", role="admin", reason="no") == REFUSED
    refused(runner, "not_an_approver")


@pytest.mark.parametrize(
    ("by", "more"),
    [("alice", {}), ("alices-key", {"owner": "alice"}), ("carol", {"groups": ("finance",)})],
    ids=["named", "owner named", "group named"],
)
def test_who_is_named_may_approve(runner: Runner, by: str, more: dict[str, Any]) -> None:
    waiting(runner, approvers=["alice"], groups=["finance"])
    assert runner.tell("approve", by, role="viewer", **more) == APPROVED


@pytest.mark.parametrize("role", ["viewer", "submitter", None])
def test_where_nobody_is_named_a_role_is_needed_at_the_moment(runner: Runner, role: str | None) -> None:
    """A role that was taken away meanwhile is not there any more."""
    waiting(runner)
    assert runner.tell("approve", role=role) == REFUSED
    refused(runner, "not_an_approver")
    assert runner.tell("approve", key="2", role="operator") == APPROVED


def test_there_is_no_way_around_the_list_and_trying_is_told(runner: Runner) -> None:
    waiting(runner, approvers=["alice"])
    assert runner.tell("approve", "root", role="admin", reason="I must") == REFUSED
    told = runner.desk.history(ID)[-1]
    assert isinstance(told, events.CommandRefused)
    assert (told.command, told.requested_by, told.reason) == ("approve", "root", "not_an_approver")


# ---------------------------------------------------------------- how often


def test_two_of_three(runner: Runner) -> None:
    waiting(runner, approvers=["alice", "carol", "dave"], quorum=2)
    assert runner.tell("approve", "alice") == ["approval.decided"]
    assert runner.tell("approve", "carol") == APPROVED
    assert runner.tell("approve", "dave") == REFUSED
    assert runner.refusal() == ("approve", "already_decided")
    words = [event for event in runner.desk.history(ID) if isinstance(event, events.ApprovalDecided)]
    assert [(word.decided_by, word.approvals, word.quorum) for word in words] == [
        ("alice", 1, 2),
        ("carol", 2, 2),
    ]
    assert runner.desk.state(request()).steps[0].output["approved_by"] == ["alice", "carol"]


@pytest.mark.parametrize(
    ("by", "owner"),
    [("alice", None), ("alices-bot", "alice"), ("ALICE", None)],
    ids=["again", "with another key", "in another case"],
)
def test_one_person_counts_once(runner: Runner, by: str, owner: str | None) -> None:
    waiting(runner, quorum=2)
    runner.tell("approve", "alice")
    assert runner.tell("approve", by, key="2", owner=owner) == REFUSED
    refused(runner, "already_decided")


def test_one_word_against_it_is_enough(runner: Runner) -> None:
    waiting(runner, quorum=3)
    runner.tell("approve", "alice")
    assert runner.tell("reject", "carol", reason="too dear") == REJECTED
    failed = runner.desk.history(ID)[-1]
    assert isinstance(failed, events.ExecutionFailed)
    assert (failed.reason, failed.message) == ("approval_rejected", "rejected by carol: too dear")
    assert runner.tell("approve", "dave") == REFUSED
    refused(runner, "already_decided")


def test_the_first_of_two_words_wins(runner: Runner) -> None:
    waiting(runner)
    runner.tell("approve", "alice")
    assert runner.tell("reject", "carol", reason="no") == REFUSED
    assert runner.refusal() == ("reject", "already_decided")
    assert runner.tell("reject", "carol", key="2", reason="no", step="approve") == REFUSED
    assert runner.refusal() == ("reject", "already_decided")
    assert runner.desk.state(request()).steps[0].status is StepStatus.COMPLETED


def test_a_word_is_replayed_in_vain(runner: Runner) -> None:
    waiting(runner, quorum=2)
    word = runner.command("approve")
    assert runner.desk.say(word) == ["approval.decided"]
    assert runner.desk.say(word) == []
    runner.tell("approve", "carol")
    assert runner.desk.say(word) == []


def test_a_link_is_good_for_one_approval(runner: Runner) -> None:
    """Not for the next one of the same pipeline, nor for the same one when the pipeline comes to it again."""
    again = goto("first")
    runner.start(*chain(approval("first"), approval("second", again), step("b")))
    seen = asked_for(runner).content_hash
    assert runner.tell("approve", step="first", content_hash=seen)[-1] == "execution.waiting"
    assert runner.tell("approve", step="first", content_hash=seen, key="2") == REFUSED
    refused(runner, "already_decided")
    assert runner.tell("approve", content_hash=seen, key="3") == REFUSED
    refused(runner, "content_changed")
    now = asked_for(runner).content_hash
    assert runner.tell("approve", step="second", content_hash=now, key="4")[-1] == "execution.waiting"
    assert runner.tell("approve", step="first", content_hash=seen, key="5") == REFUSED
    refused(runner, "content_changed")


# ---------------------------------------------------------------- when


def test_an_approval_before_its_time_is_none(runner: Runner) -> None:
    runner.start(*chain(step("a"), approval(), step("b")))
    assert runner.tell("approve") == REFUSED
    assert runner.refusal() == ("approve", "not_waiting")
    assert runner.tell("approve", key="2", step="approve") == REFUSED
    assert runner.refusal() == ("approve", "not_waiting")
    assert runner.end("a")[-1] == "execution.waiting"
    assert runner.asked() == ["a"]


def test_an_approval_after_a_cancellation_is_none(runner: Runner) -> None:
    waiting(runner)
    assert runner.tell("cancel") == ["step.cancelled", "step.cancelled", "execution.cancelled"]
    assert runner.tell("approve") == REFUSED
    refused(runner, "already_ended")
    assert runner.tell("approve", key="2", step="approve") == REFUSED
    refused(runner, "already_ended")


@pytest.mark.parametrize(
    ("on_expiry", "told"),
    [
        ("fail", ["approval.decided", "step.failed", "execution.failed"]),
        ("cancel", ["approval.decided", "step.cancelled", "step.cancelled", "execution.cancelled"]),
        ("skip", ["approval.decided", "step.skipped", "execution.resumed", "step.requested"]),
    ],
)
def test_an_approval_expires(runner: Runner, on_expiry: str, told: list[str]) -> None:
    waiting(runner, expires_after_s=60, on_expiry=on_expiry)
    assert runner.desk.wait(59) == []
    assert runner.desk.wait(1) == told
    assert runner.tell("approve", step="approve") == REFUSED
    assert runner.refusal() == ("approve", "expired")


def test_a_word_that_came_too_late_is_none_before_the_timer_has_gone_off(runner: Runner) -> None:
    waiting(runner, expires_after_s=60)
    until = asked_for(runner).until
    assert until is not None
    assert runner.tell("approve", requested_at=until) == REFUSED
    refused(runner, "expired")


def test_nothing_waits_for_ever(runner: Runner) -> None:
    waiting(runner)
    assert runner.desk.wait(30 * 86400)[-1] == "execution.failed"


def test_a_pause_does_not_keep_an_approval_from_its_end(runner: Runner) -> None:
    waiting(runner)
    assert runner.tell("pause") == ["execution.waiting"]
    assert runner.tell("approve") == ["approval.decided", "step.completed"]
    assert runner.tell("resume") == ["execution.resumed", "step.requested"]


def test_a_pause_over_a_waiting_approval_leaves_it_waiting(runner: Runner) -> None:
    waiting(runner)
    runner.tell("pause")
    assert runner.tell("resume") == ["execution.resumed", "execution.waiting"]
    assert runner.desk.state(request()).status is Status.WAITING
    assert runner.tell("approve") == APPROVED


# ---------------------------------------------------------------- on what


def test_an_edit_voids_what_was_approved(runner: Runner) -> None:
    waiting(runner, quorum=2)
    seen = asked_for(runner).content_hash
    runner.tell("approve", "alice", content_hash=seen)
    runner.plan(*chain(approval(quorum=2), step("b", parameters={"amount": 9})))
    assert runner.tell("amend", "dave", values={"amount": 9}) == ["execution.amended", "step.waiting"]
    assert runner.tell("approve", "carol", content_hash=seen) == REFUSED
    refused(runner, "content_changed")
    now = asked_for(runner).content_hash
    assert now != seen
    assert runner.tell("approve", "alice", key="2", content_hash=now) == ["approval.decided"]
    assert runner.tell("approve", "carol", key="2", content_hash=now) == APPROVED
    assert runner.order("b").parameters == {"amount": 9}


@pytest.mark.parametrize(
    ("by", "owner"),
    [("dave", None), ("daves-bot", "dave"), ("erin", None), ("Erin", None)],
    ids=["self", "bot", "owner", "in another case"],
)
def test_nobody_approves_their_own_edit(runner: Runner, by: str, owner: str | None) -> None:
    waiting(runner)
    runner.tell("amend", "dave", owner="erin", values={"amount": 9})
    assert runner.tell("approve", by, owner=owner) == REFUSED
    refused(runner, "self_approval")


def test_an_edit_comes_before_the_first_step_or_while_an_approval_waits(runner: Runner) -> None:
    runner.start(*chain(step("a"), approval(), step("b")))
    assert runner.tell("amend", values={"amount": 9}) == REFUSED
    assert runner.refusal() == ("amend", "not_pending")
    runner.end("a")
    assert runner.tell("amend", key="2", values={"amount": 9}) == ["execution.amended", "step.waiting"]
    assert runner.tell("amend", key="2", values={"amount": 9}) == []


def test_an_edit_between_the_look_and_the_word_voids_it_though_nothing_was_named(runner: Runner) -> None:
    waiting(runner)
    runner.tell("amend", "dave", values={"amount": 9})
    assert runner.tell("approve", "alice", step="approve") == REFUSED
    refused(runner, "content_changed")
    now = asked_for(runner).content_hash
    assert runner.tell("approve", "alice", key="2", step="approve", content_hash=now) == APPROVED


def test_an_edit_before_the_approval_waits_has_to_be_named_too(runner: Runner) -> None:
    """Whoever looked at the request before it waited saw other values."""
    runner.start(*chain(approval(), step("b")), hold=True)
    runner.tell("amend", "dave", values={"amount": 9})
    runner.tell("start")
    assert runner.tell("approve", "alice") == REFUSED
    refused(runner, "content_changed")


def test_a_word_without_content_is_none_where_there_are_several(runner: Runner) -> None:
    """Somebody else decided the first one; this word was not meant for what waits now."""
    runner.start(*chain(approval("first"), approval("second"), step("b")))
    assert runner.tell("approve", "alice") == REFUSED
    refused(runner, "content_changed")
    assert runner.tell("approve", "alice", key="2", step="first")[0] == "approval.decided"
    assert runner.tell("approve", "carol") == REFUSED
    refused(runner, "content_changed")


def test_a_no_needs_no_content(runner: Runner) -> None:
    waiting(runner)
    runner.tell("amend", "dave", values={"amount": 9})
    assert runner.tell("reject", "alice", reason="too dear") == REJECTED


def test_nothing_is_edited_that_an_earlier_step_had_approved(runner: Runner) -> None:
    """The first approver would stand for values that they never saw, or that are their own."""
    runner.start(*chain(approval("first"), approval("second"), step("b")))
    runner.tell("approve", "alice", step="first")
    assert runner.tell("amend", "dave", values={"amount": 9}) == REFUSED
    refused(runner, "already_decided")


def test_what_expired_and_was_skipped_was_nobodys_consent(runner: Runner) -> None:
    runner.start(
        *chain(approval("first", expires_after_s=60, on_expiry="skip"), approval("second"), step("b"))
    )
    runner.desk.wait(61)
    assert runner.tell("amend", "dave", values={"amount": 9}) == ["execution.amended", "step.waiting"]


def test_a_held_request_can_be_amended(runner: Runner) -> None:
    runner.start(step("b"), hold=True)
    runner.plan(step("b", parameters={"amount": 9}))
    assert runner.tell("amend", values={"amount": 9}) == ["execution.amended"]
    runner.tell("start")
    assert runner.order("b").parameters == {"amount": 9}


def test_an_edit_must_lead_to_the_same_steps(runner: Runner) -> None:
    waiting(runner)
    runner.plan(approval())
    assert runner.tell("amend", values={"amount": 9}) == REFUSED
    refused(runner, "bad_form")
    assert runner.tell("amend", key="2") == REFUSED
    refused(runner, "bad_form")


def test_a_form_is_typed(runner: Runner) -> None:
    fields = [{"name": "cost_centre", "type": "integer", "required": True}]
    waiting(runner, form=fields)
    assert runner.tell("approve", values={"cost_centre": "seven"}) == REFUSED
    refused(runner, "bad_form")
    assert runner.tell("approve", key="2") == REFUSED
    refused(runner, "bad_form")
    assert runner.tell("approve", key="3", values={"cost_centre": 7, "more": 1}) == REFUSED
    refused(runner, "bad_form")
    assert runner.tell("approve", key="4", values={"cost_centre": 7}) == APPROVED
    output = runner.desk.state(request()).steps[0].output
    assert output == {"decision": "approved", "approved_by": ["alice"], "form": {"cost_centre": 7}}


def test_a_quorum_agrees_on_one_form(runner: Runner) -> None:
    """Nobody's values are replaced by another's behind their back."""
    fields = [{"name": "cost_centre", "type": "integer"}, {"name": "note", "required": False}]
    waiting(runner, form=fields, quorum=2)
    runner.tell("approve", "alice", values={"cost_centre": 7})
    for key, other in enumerate(({"cost_centre": 8}, {"cost_centre": 7, "note": "x"})):
        assert runner.tell("approve", "carol", key=str(key), values=other) == REFUSED
        refused(runner, "form_differs")
    told = runner.desk.history(ID)[-1]
    assert isinstance(told, events.CommandRefused)
    assert told.message == "form: expected what alice approved with, found another note"
    assert runner.tell("approve", "carol", key="ok", values={"cost_centre": 7}) == APPROVED
    output = runner.desk.state(request()).steps[0].output
    assert output == {"decision": "approved", "approved_by": ["alice", "carol"], "form": {"cost_centre": 7}}


def test_an_edit_lets_a_quorum_give_other_values(runner: Runner) -> None:
    waiting(runner, form=[{"name": "cost_centre", "type": "integer"}], quorum=2)
    runner.tell("approve", "alice", values={"cost_centre": 7})
    runner.tell("amend", "dave", values={"amount": 9})
    now = asked_for(runner).content_hash
    again = {"values": {"cost_centre": 8}, "content_hash": now}
    assert runner.tell("approve", "alice", key="2", **again) == ["approval.decided"]
    assert runner.tell("approve", "carol", key="2", **again) == APPROVED


def test_a_rejection_says_why_and_so_does_a_remark(runner: Runner) -> None:
    waiting(runner)
    for number, kind in enumerate(("reject", "remark", "reject", "remark")):
        assert runner.tell(kind, key=str(number), reason="  " if number > 1 else None) == REFUSED
        refused(runner, "reason_required")


def test_a_remark_decides_nothing_and_anybody_may_make_one(runner: Runner) -> None:
    waiting(runner)
    assert runner.tell("remark", "shop", reason="it is urgent") == ["approval.remarked"]
    assert runner.tell("remark", "shop", reason="it is urgent") == []
    assert runner.tell("approve") == APPROVED
    assert runner.tell("remark", "shop", key="2", reason="thank you") == REFUSED


def test_an_unknown_step_is_named(runner: Runner) -> None:
    waiting(runner)
    assert runner.tell("approve", step="nowhere") == REFUSED
    refused(runner, "unknown_step")


# ---------------------------------------------------------------- forged


def test_no_worker_ends_an_approval(runner: Runner) -> None:
    waiting(runner)
    forged = ids.attempt_id(ID, "approve", 1)
    assert runner.desk.say(outcome(forged, request())) == ["step.completed.dlq"]
    assert runner.desk.say(claim(forged)) == ["step.progressed.dlq"]
    assert runner.desk.state(request()).status is Status.WAITING


def test_another_tenant_decides_nothing(runner: Runner) -> None:
    waiting(runner)
    assert runner.tell("approve", tenant="other") == ["execution.commands.dlq"]
    assert runner.desk.state(request()).status is Status.WAITING


def test_a_forged_consent_before_the_request_is_judged_like_any(runner: Runner) -> None:
    assert runner.tell("approve", "shop", role="admin") == []
    told = runner.start(*chain(approval(), step("b")))
    assert told[-1] == "command.refused"
    refused(runner, "self_approval")


# ---------------------------------------------------------------- what follows


def test_a_rejection_can_be_handled(runner: Runner) -> None:
    runner.start(approval("ok", goto("undo", "error"), next=("b",)), step("b"), step("undo"))
    assert runner.tell("reject", reason="no") == [
        *("approval.decided", "hook.completed", "step.failed"),
        *("execution.resumed", "step.requested"),
    ]
    assert runner.asked() == ["undo"]


def test_exit_actions_see_the_decision(runner: Runner) -> None:
    who = {"query": {"who": "$.result.approved_by[0]"}}
    runner.start(approval("ok", call("Logger:ok", "success", parameters=who)))
    runner.tell("approve")
    assert runner.order("ok.success.0.1").parameters == {"query": "who=alice"}


def test_a_second_coming_asks_again(runner: Runner) -> None:
    runner.start(approval("ok", next=("b",)), step("b", goto("ok"), max_step_runs=3))
    runner.tell("approve")
    assert runner.end("b")[-1] == "execution.waiting"
    assert runner.tell("approve", key="2", step="ok") == REFUSED, "it may have been meant for the first time"
    assert runner.refusal() == ("approve", "content_changed")
    now = asked_for(runner).content_hash
    assert runner.tell("approve", key="3", step="ok", content_hash=now)[0] == "approval.decided"


# ---------------------------------------------------------------- secrets


def test_a_secret_of_an_approval_is_for_later_steps_and_for_no_reader(runner: Runner) -> None:
    fields = [{"name": "code", "secret": True}, {"name": "pin"}, {"name": "note"}]
    given = {"code": "hush-1", "pin": "hush-2", "note": "seen"}
    waiting(runner, form=fields)
    runner.tell("approve", "alice", values=given)
    assert runner.desk.state(request()).steps[0].output["form"] == given
    shown = [public.view(event) for event in runner.desk.history(ID)]
    assert "hush" not in str(shown)
    hidden = {"code": "***", "pin": "***", "note": "seen"}
    (decided,) = [one for one in shown if one["type"] == "approval.decided"]
    (completed,) = [one for one in shown if one["type"] == "step.completed" and one["step"] == "approve"]
    assert decided["form"] == completed["output"]["form"] == hidden
