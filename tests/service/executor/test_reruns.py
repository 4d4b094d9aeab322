"""Reruns of pipelines: what is taken over, and what has to be done or approved again."""

from typing import Any

import pytest
from msgspec.structs import replace

from services.contracts import events, ids
from services.contracts.commands import Definition, JobRequested
from services.contracts.events import PlannedStep
from services.contracts.flow import Action
from services.contracts.status import Status
from services.executor.core.execution import Execution
from tests.pipelining import linked
from tests.service.executor.house import outcome
from tests.service.executor.pipelines import ID, Runner, approval, call, chain, goto, request, step

AGAIN = ids.rerun_id(ID, 1)
BODY = {"form": [{"name": "amount", "type": "integer"}], "steps": linked("a")}


def rerun(runner: Runner, by: str = "alice", **more: Any) -> JobRequested:
    """Somebody wants it again, with the results there are; what the manager made of it."""
    runner.tell("rerun", by, reuse_results=True, rerun_id=AGAIN, **more)
    wanted: JobRequested = runner.desk.sent("job.requested")[-1]
    return wanted


def told(runner: Runner, wanted: JobRequested) -> list[tuple[str, str | None]]:
    """What came of it: the events' names and steps."""
    runner.desk.say(wanted)
    found = runner.desk.history(wanted.execution_id)
    return [(events.type_of(event), getattr(event, "step", None)) for event in found]


def asked(runner: Runner) -> list[str]:
    """The steps of the rerun that were asked for."""
    return [order.step for order in runner.desk.orders() if order.execution_id == AGAIN]


def state(runner: Runner) -> Execution:
    found = runner.desk.states[AGAIN]
    assert isinstance(found, Execution)
    return found


def three(*actions: Action, **more: Any) -> tuple[PlannedStep, ...]:
    return chain(step("a"), step("b", *actions, **more), step("c"))


def test_a_rerun_begins_at_the_step_that_failed(runner: Runner) -> None:
    runner.start(*three())
    runner.end("a", output={"n": 1})
    runner.end("b", "fail")
    assert told(runner, rerun(runner)) == [
        ("execution.accepted", None),
        ("execution.started", None),
        ("step.completed", "a"),
    ]
    assert asked(runner) == ["b"]
    assert state(runner).steps[0].output == {"n": 1}


def test_a_step_that_is_come_to_again_counts_on_from_the_results_taken_over(runner: Runner) -> None:
    runner.start(*three(goto("a", "success")))
    runner.end("a")
    runner.end("b", "fail")
    told(runner, rerun(runner))
    runner.desk.say(outcome(runner.desk.orders()[-1].attempt_id, request(execution_id=AGAIN)))
    again = runner.desk.orders()[-1]
    # its files have other names than those that were taken over
    assert (again.execution_id, again.step, again.visit) == (AGAIN, "a", 2)


def test_without_reuse_it_begins_at_the_beginning(runner: Runner) -> None:
    runner.start(*three())
    runner.end("a")
    runner.end("b", "fail")
    runner.tell("rerun", rerun_id=AGAIN)
    runner.desk.say(runner.desk.sent("job.requested")[-1])
    assert asked(runner) == ["a"]


def test_a_rerun_goes_the_way_that_the_original_went(runner: Runner) -> None:
    runner.start(step("a", goto("c"), next=("b",)), step("b"), step("c"))
    runner.end("a")
    runner.end("c", "fail")
    assert told(runner, rerun(runner))[-1] == ("step.completed", "a")
    assert asked(runner) == ["c"]


def test_a_rerun_of_what_was_completed_is_complete(runner: Runner) -> None:
    runner.start(step("a"))
    runner.end("a")
    assert told(runner, rerun(runner))[-1] == ("execution.completed", None)
    assert asked(runner) == []


def test_a_rerun_of_a_rerun_takes_over_what_was_taken_over(runner: Runner) -> None:
    runner.start(*three())
    runner.end("a")
    runner.end("b", "fail")
    told(runner, rerun(runner))
    order = runner.desk.orders()[-1]
    runner.desk.say(
        outcome(order.attempt_id, request(execution_id=AGAIN), outcome="fail", reason="r", message="m")
    )
    second = ids.rerun_id(AGAIN, 1)
    command = runner.command("rerun", key="again", reuse_results=True, rerun_id=second)
    runner.desk.say(replace(command, execution_id=AGAIN))
    runner.desk.say(runner.desk.sent("job.requested")[-1])
    assert [order.step for order in runner.desk.orders() if order.execution_id == second] == ["b"]


def test_a_changed_step_is_done_again_and_all_after_it(runner: Runner) -> None:
    runner.start(*three())
    runner.end("a")
    runner.end("b", "fail")
    newer = Definition(kind="pipeline", id="p", revision=2, body=BODY)
    wanted = rerun(runner, definition=newer)
    assert wanted.definition == newer
    runner.plan(*chain(step("a", parameters={"changed": True}), step("b"), step("c")))
    told(runner, wanted)
    assert asked(runner) == ["a"]


def test_the_same_revision_is_the_rule(runner: Runner) -> None:
    pinned = Definition(kind="pipeline", id="p", revision=1, body=BODY)
    runner.start(step("a"), definition=pinned)
    runner.end("a", "fail")
    assert rerun(runner).definition == pinned


def test_an_approval_stands_for_the_same_content(runner: Runner) -> None:
    runner.start(*chain(approval(), step("b")))
    runner.tell("approve", "carol")
    runner.end("b", "fail")
    assert ("step.completed", "approve") in told(runner, rerun(runner))
    assert asked(runner) == ["b"]


def test_no_approval_stands_for_other_content(runner: Runner) -> None:
    runner.start(*chain(approval(), step("b")))
    runner.tell("approve", "carol")
    runner.end("b", "fail")
    wanted = rerun(runner)
    runner.plan(*chain(approval(), step("b", parameters={"changed": True})))
    assert told(runner, wanted)[-1] == ("execution.waiting", "approve")
    assert asked(runner) == []


def test_no_approval_stands_for_the_approver_itself(runner: Runner) -> None:
    runner.start(*chain(approval(), step("b")))
    runner.tell("approve", "carol")
    runner.end("b", "fail")
    wanted = rerun(runner, by="carols-bot", owner="carol")
    assert (wanted.created_by, wanted.owner) == ("carols-bot", "carol")
    assert told(runner, wanted)[-1] == ("execution.waiting", "approve")


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("by", ["shop", "dave", "daves-bot"], ids=["requester", "amender", "amender's bot"])
def test_nobody_approves_in_a_rerun_what_was_their_own_before(runner: Runner, by: str, reuse: bool) -> None:
    """Somebody else asks for it again; the values are still theirs."""
    runner.start(*chain(approval(), step("b")))
    runner.tell("amend", "dave", values={"amount": 9})
    runner.tell("reject", "carol", reason="no")
    runner.tell("rerun", "erin", rerun_id=AGAIN, reuse_results=reuse)
    told(runner, runner.desk.sent("job.requested")[-1])
    assert decide(runner, by, owner="dave" if by == "daves-bot" else None) == ["command.refused"]
    last = runner.desk.history(AGAIN)[-1]
    assert isinstance(last, events.CommandRefused) and last.reason == "self_approval"
    assert decide(runner, "carol")[0] == "approval.decided"


def test_nor_in_a_rerun_of_a_rerun(runner: Runner) -> None:
    runner.start(*chain(approval(), step("b")), owner="bob")
    runner.tell("reject", "carol", reason="no")
    runner.tell("rerun", "erin", rerun_id=AGAIN)
    told(runner, runner.desk.sent("job.requested")[-1])
    runner.desk.say(replace(runner.command("reject", "carol", "2", reason="no"), execution_id=AGAIN))
    second = ids.rerun_id(AGAIN, 1)
    runner.desk.say(
        replace(runner.command("rerun", "frank", "2", rerun_id=second, owner=None), execution_id=AGAIN)
    )
    told(runner, runner.desk.sent("job.requested")[-1])
    for by in ("bob", "shop", "erin", "frank"):
        assert decide(runner, by, second) == ["command.refused"], by
    assert decide(runner, "carol", second)[0] == "approval.decided"


def decide(runner: Runner, by: str, execution_id: str = AGAIN, **more: Any) -> list[str]:
    """Somebody approves what waits in a rerun."""
    return runner.desk.say(replace(runner.command("approve", by, "r", **more), execution_id=execution_id))


def test_no_results_are_reused_of_other_values(runner: Runner) -> None:
    """A template is planned alike whatever fills it: what came of other values is no result of this one."""
    runner.start(*three())
    runner.end("a")
    runner.end("b", "fail")
    other = replace(rerun(runner), parameters={"values": {"amount": 4}, "time_range": None})
    assert told(runner, other) == [("execution.rejected", None)]
    [rejected] = runner.desk.history(AGAIN)
    assert isinstance(rejected, events.ExecutionRejected)
    assert [error.pointer for error in rejected.errors] == ["values"]
    assert asked(runner) == []


def test_results_are_reused_where_a_newer_form_adds_a_default(runner: Runner) -> None:
    first = Definition(kind="pipeline", id="p", revision=1, body=BODY)
    runner.start(*three(), definition=first)
    runner.end("a")
    runner.end("b", "fail")
    form = [*BODY["form"], {"name": "copies", "type": "integer", "default": 1}]
    newer = Definition(kind="pipeline", id="p", revision=2, body={**BODY, "form": form})
    wanted = rerun(runner, definition=newer)
    assert wanted.parameters["values"] == {"amount": 3, "copies": 1}
    told(runner, wanted)
    assert asked(runner) == ["b"]


def test_a_rerun_runs_with_the_amended_values(runner: Runner) -> None:
    runner.start(approval(on_expiry="fail"))
    runner.tell("amend", "dave", values={"amount": 9})
    runner.tell("reject", reason="no")
    assert rerun(runner).parameters["values"] == {"amount": 9}


def test_an_action_asked_for_before_the_end_outlives_a_lost_log(runner: Runner) -> None:
    runner.start(step("a", call("Logger:success", "success")))
    runner.end("a")
    ended = runner.desk.states[ID]
    assert isinstance(ended, Execution)
    assert ended.status is Status.COMPLETED
    again = list(runner.desk.manager.reconcile(ended, frozenset({"step.requested"}), runner.desk.now))
    assert [dict(record.headers)["ce_id"].decode() for record in again] == [
        runner.order("a.success.0.1").attempt_id
    ]


def test_orders_made_twice_are_the_same(runner: Runner) -> None:
    parameters = {"method": "GET", "url": "https://a.example/${amount}", "query": {"e": "$.execution.error"}}
    runner.start(step("a", goto("b", "error")), step("b", kind="API", parameters=parameters))
    runner.end("a", "fail")
    live = runner.desk.states[ID]
    assert isinstance(live, Execution)
    again = list(runner.desk.manager.reconcile(live, frozenset({"step.requested"}), runner.desk.now))
    made = [record for record in runner.desk.out if record.topic == "step.requested"]
    assert again == made[-1:]


def test_a_rerun_with_another_definition_has_its_limits_and_timeout(runner: Runner) -> None:
    former = [{"key": "pipeline:p", "max": 1, "holds_paused": False}]
    runner.start(step("a"), limits=former, timeout_s=60)
    runner.end("a")
    body = {
        "steps": [{"step_name": "a", "step_type": "NOOP"}],
        "limits": [{"key": "pipeline", "max": 5}],
        "timeout_s": 600,
        "form": [{"name": "amount", "type": "integer"}],
    }
    newer = Definition(kind="pipeline", id="p", revision=2, body=body)
    runner.tell("rerun", rerun_id=ids.rerun_id(ID, 1), definition=newer)
    runner.tell("rerun", key="2", rerun_id=ids.rerun_id(ID, 2))
    latest, same = runner.desk.sent("job.requested")
    assert (latest.limits, latest.timeout_s) == ([{**former[0], "max": 5}], 600)
    assert (same.limits, same.timeout_s) == (former, 60)


def test_only_the_latest_definitions_of_reruns_are_kept(runner: Runner) -> None:
    runner.start(step("a"))
    runner.end("a")
    newer = Definition(kind="pipeline", id="p", revision=2, body={"large": "x" * 1000})
    for number in range(10):
        runner.tell("rerun", key=str(number), rerun_id=ids.rerun_id(ID, number), definition=newer)
    kept = runner.desk.state(request()).reruns
    assert [rerun.rerun_id for rerun in kept] == [ids.rerun_id(ID, number) for number in (7, 8, 9)]
    assert len(runner.desk.sent("job.requested")) == 10
