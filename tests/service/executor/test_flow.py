"""Pipelines through the manager: agenda, hooks, gotos, errors, waits, pauses, loops."""

from datetime import timedelta

import pytest

from services.contracts import events, ids
from services.contracts.status import Status
from services.executor.core import pace
from tests.service.executor.house import NOW, claim
from tests.service.executor.pipelines import ID, Runner, approval, call, chain, goto, request, step

ERROR, NO_ERROR = "$.execution.error != null", "$.execution.error = null"
ERROR_QUERY = {"query": {"error": {"$.execution.error": None}}}


def failure(runner: Runner) -> tuple[str, str | None, str]:
    """Reason, step and message of the execution's failure."""
    ended = [event for event in runner.desk.history(ID) if isinstance(event, events.ExecutionFailed)]
    return ended[-1].reason, ended[-1].step, ended[-1].message


def test_steps_run_one_after_the_other(runner: Runner) -> None:
    assert runner.start(*chain(step("a"), step("b"))) == ["execution.accepted", "step.requested"]
    assert runner.end("a") == ["execution.started", "step.running", "step.completed", "step.requested"]
    assert runner.end("b") == ["step.running", "step.completed", "execution.completed"]


def test_every_step_that_a_success_names_runs_and_then_what_follows_them(runner: Runner) -> None:
    runner.start(step("a", next=("b", "c")), step("b", next=("d",)), step("c"), step("d"))
    for name in ("a", "b", "c", "d"):
        runner.end(name)
    assert runner.asked() == ["a", "b", "c", "d"]
    assert runner.desk.state(request()).status is Status.COMPLETED


def test_a_hook_that_is_cast_is_nobodys_business(runner: Runner) -> None:
    runner.start(step("a", call(max_attempts=1)))
    assert runner.asked() == ["a.enter.0.1", "a"]
    assert runner.end("a") == ["step.running", "step.completed", "execution.completed"]
    assert runner.end("a.enter.0.1", "fail") == ["hook.failed"], "told, though all is over"
    assert runner.end("a.enter.0.1", "fail") == []


def test_an_awaited_hook_ends_before_the_work_begins(runner: Runner) -> None:
    runner.start(step("a", call(wait=True)))
    assert runner.asked() == ["a.enter.0.1"]
    assert runner.end("a.enter.0.1", output={"status": 200}) == ["hook.completed", "step.requested"]
    assert runner.end("a")[-1] == "execution.completed"


def test_a_hook_names_no_file_that_is_never_published(runner: Runner) -> None:
    runner.start(step("a", call(wait=True)))
    answered = {"status": 200, "headers": {}, "body": None}
    runner.end("a.enter.0.1", output={**answered, "body_file": "a.enter.0.1-response.bin"})
    runner.end("a")
    ended = [event for event in runner.desk.history(ID) if isinstance(event, events.HookCompleted)]
    assert [event.output for event in ended] == [{**answered, "body_file": None}]


def test_an_awaited_hook_that_fails_fails_its_step(runner: Runner) -> None:
    runner.start(step("a", call(wait=True, max_attempts=1)))
    assert runner.end("a.enter.0.1", "fail") == ["hook.failed", "step.failed", "execution.failed"]
    assert failure(runner) == ("hook_failed", "a", "Logger:start (enter): r: m")
    assert runner.asked() == ["a.enter.0.1"]


def test_a_hook_is_tried_again_without_a_word(runner: Runner) -> None:
    runner.start(step("a", call(wait=True, max_attempts=2)))
    assert runner.end("a.enter.0.1", "retry") == []
    assert runner.desk.wait(2) == ["step.requested"]
    assert runner.end("a.enter.0.1", "retry")[0] == "hook.failed"


def test_a_worker_that_dies_of_a_hook_costs_an_attempt(runner: Runner) -> None:
    runner.start(step("a", call(wait=True, max_attempts=2)))
    for _ in range(2):
        order = runner.order("a.enter.0.1")
        assert runner.desk.say(claim(order.attempt_id)) == []
        told = runner.desk.wait(21)
    assert told == ["hook.failed", "step.failed", "execution.failed", "step.control"]


def test_exit_actions_by_condition(runner: Runner) -> None:
    """S2's third workbook: gotos and calls, each with its condition on the error."""
    actions = (
        goto("b", when=NO_ERROR),
        call("Logger:success", "exit", when=NO_ERROR),
        goto("c", when=ERROR),
        call("Logger:error", "exit", when=ERROR),
    )
    runner.start(step("a", *actions), step("b"), step("c"))
    told = runner.end("a", "fail")
    assert runner.asked() == ["a", "a.exit.3.1", "c"]
    assert told == [
        *("execution.started", "step.running", "hook.completed", "step.failed"),
        *("step.requested", "step.requested"),
    ]
    assert runner.end("c")[-1] == "execution.completed", "the error was handled"
    error = runner.desk.state(request()).error
    assert error is not None
    assert (error.step, error.reason, error.message) == ("a", "r", "m")


def test_a_success_goes_the_other_way(runner: Runner) -> None:
    runner.start(
        step("a", goto("b", when=NO_ERROR), goto("c", when=ERROR), next=("c",)), step("b"), step("c")
    )
    runner.end("a")
    assert runner.asked() == ["a", "b"]
    assert runner.end("b")[-1] == "execution.completed"


def test_the_error_can_be_read_long_after_it_was_handled(runner: Runner) -> None:
    """S2's workflow: the no-op at the end tells success from failure."""
    log = call("Logger:error", "exit", when=ERROR, parameters=ERROR_QUERY)
    runner.start(step("a", goto("b")), step("b", goto("end")), step("end", log))
    runner.end("a", "fail")
    runner.end("b")
    runner.end("end")
    assert runner.asked()[-1] == "end.exit.0.1"
    assert "step" in runner.order("end.exit.0.1").parameters["query"]


def test_on_error_calls_are_made_before_the_end(runner: Runner) -> None:
    runner.start(step("a", call("Logger:error", "error"), call("Logger:success", "success")))
    assert runner.end("a", "fail")[-2:] == ["execution.failed", "step.requested"]
    assert runner.asked() == ["a", "a.error.0.1"]
    assert runner.end("a.error.0.1", "retry") == ["hook.failed"], "nothing is asked for after the end"
    assert runner.desk.wait(3600) == []


def test_the_step_ends_when_its_awaited_exit_action_has(runner: Runner) -> None:
    runner.start(step("a", call("Logger:success", "success", wait=True)))
    assert runner.end("a", output=7) == ["execution.started", "step.running", "step.requested"]
    assert runner.end("a", output=8) == [], "its outcome is known"
    assert runner.end("a.success.0.1") == ["hook.completed", "step.completed", "execution.completed"]
    assert runner.desk.state(request()).steps[0].output == 7


def test_an_awaited_exit_action_makes_a_failure_of_a_success(runner: Runner) -> None:
    actions = (
        call("Logger:success", "success", wait=True, max_attempts=1),
        goto("b", "success"),
        goto("c", "error"),
    )
    runner.start(step("a", *actions), step("b"), step("c"))
    runner.end("a")
    told = runner.end("a.success.0.1", "fail")
    assert told == ["hook.failed", "hook.completed", "step.failed", "step.requested"]
    assert runner.asked()[-1] == "c"


def test_an_action_that_waits_for_another_attempt_ends_with_the_execution(runner: Runner) -> None:
    runner.start(step("a", call()))
    runner.end("a.enter.0.1", "retry", reason="http_503")
    assert runner.end("a")[-2:] == ["execution.completed", "hook.failed"]
    assert runner.desk.wait(600) == []


def test_a_loop_ends(runner: Runner) -> None:
    runner.start(step("a", goto("a"), max_step_runs=5))
    for _ in range(5):
        runner.end("a")
    assert failure(runner) == (
        "loop_limit",
        "a",
        "5 steps have run, as many as the pipeline's limit (max_step_runs) allows",
    )
    orders = runner.desk.orders()
    assert [(order.attempt, order.visit) for order in orders] == [(n, n) for n in range(1, 6)]


def test_a_loop_without_any_work_ends_too(runner: Runner) -> None:
    broken = {"method": "GET", "url": "https://a.example/${steps.b.result.x}"}
    runner.start(step("a", goto("a", "error"), kind="API", parameters=broken, max_step_runs=10), step("b"))
    assert failure(runner)[0] == "loop_limit"
    assert runner.asked() == []


def test_attempts_of_a_visit_share_what_receivers_tell_them_by(runner: Runner) -> None:
    runner.start(step("a", goto("a"), max_step_runs=2))
    runner.end("a", "retry")
    runner.desk.wait(2)
    runner.end("a")
    runner.end("a")
    assert [(order.attempt, order.visit) for order in runner.desk.orders()] == [(1, 1), (2, 1), (3, 2)]
    assert ids.step_key(ID, "a", 1) != ids.step_key(ID, "a", 2)


def test_parameters_are_filled_when_the_step_is_asked_for(runner: Runner) -> None:
    parameters = {
        "method": "POST",
        "url": "https://shop.example/orders/${steps.a.result.id}",
        "headers": {"authorization": "Bearer ${secrets.shop}"},
        "query": {"amount": "$.amount"},
        "data": {"amount": "${amount}", "note": "${steps.a.result.note}"},
    }
    runner.start(*chain(step("a"), step("b", kind="API", parameters=parameters)))
    runner.end("a", output={"id": "x/y", "note": "${secrets.shop}"})
    assert runner.order("b").parameters == {
        "method": "POST",
        "url": "https://shop.example/orders/x%2Fy",
        "headers": {"authorization": "Bearer ${secrets.shop}"},
        "query": "amount=3",
        "data": {"amount": 3, "note": "$${secrets.shop}"},
    }


def test_what_cannot_be_filled_fails_the_step(runner: Runner) -> None:
    parameters = {"method": "GET", "url": "https://shop.example/${steps.a.result.id}"}
    runner.start(*chain(step("a"), step("b", kind="API", parameters=parameters)))
    assert runner.end("a", output={})[-2:] == ["step.failed", "execution.failed"]
    message = "url: expected a value for ${steps.a.result.id}, found none"
    assert failure(runner) == ("unresolved_placeholder", "b", message)


def test_a_transform_is_evaluated_here_and_echoed_by_a_worker(runner: Runner) -> None:
    total = {"output": {"total": "$.steps.a.result.total", "text": "${amount} of ${steps.a.result.total}"}}
    runner.start(*chain(step("a"), step("b", kind="TRANSFORM", parameters=total)))
    runner.end("a", output={"total": 9})
    assert runner.order("b").parameters == {"output": {"total": 9, "text": "3 of 9"}}


def test_fail_on_makes_a_failure_of_a_result(runner: Runner) -> None:
    runner.start(step("a", fail_on="$.result.count = 0"))
    runner.end("a", output={"count": 0})
    assert failure(runner) == ("fail_on", "a", "the result met fail_on: $.result.count = 0")


def test_fail_on_can_be_tried_again(runner: Runner) -> None:
    runner.start(step("a", fail_on="$.result.count = 0", retry={"only_on": ["fail_on"]}))
    assert runner.end("a", output={"count": 0})[-1] == "step.retry_scheduled"
    runner.desk.wait(2)
    assert runner.end("a", output={"count": 1})[-1] == "execution.completed"


def test_a_condition_that_has_no_value_fails_the_step(runner: Runner) -> None:
    runner.start(step("a", goto("a", when="$.amount")))
    runner.end("a")
    assert failure(runner)[0] == "hook_failed"
    assert "bad_condition" in failure(runner)[2]


def test_waits_before_and_after(runner: Runner) -> None:
    told = runner.start(*chain(step("a", wait_before_s=10, wait_after_s=20), step("b")))
    assert told == ["execution.accepted", "execution.started", "step.waiting", "execution.waiting"]
    assert runner.desk.state(request()).status is Status.WAITING
    assert runner.desk.wait(10) == ["execution.resumed", "step.requested"]
    assert runner.end("a") == ["step.running", "step.completed", "execution.waiting"]
    assert runner.desk.wait(20) == ["execution.resumed", "step.requested"]
    assert runner.asked() == ["a", "b"]


def test_pause_before_begins_by_resume(runner: Runner) -> None:
    told = runner.start(step("a", pause_before=True))
    assert told == ["execution.accepted", "execution.started", "step.waiting", "execution.waiting"]
    assert runner.desk.wait(86400 * 3) == []
    assert runner.tell("resume") == ["execution.resumed", "step.requested"]
    assert runner.tell("resume") == [], "answered once"
    assert runner.tell("resume", key="2") == ["command.refused"]
    assert runner.refusal() == ("resume", "not_paused")


def test_paused_nothing_begins_and_what_runs_ends(runner: Runner) -> None:
    runner.start(*chain(step("a", call("Logger:success", "success")), step("b")))
    assert runner.tell("pause") == ["execution.started", "execution.waiting"]
    assert runner.tell("pause", key="2") == ["command.refused"]
    assert runner.refusal() == ("pause", "already_paused")
    assert runner.end("a") == ["step.running"]
    assert runner.tell("resume") == [
        *("execution.resumed", "step.completed"),
        *("step.requested", "step.requested"),
    ]
    assert runner.asked() == ["a", "a.success.0.1", "b"]


def test_a_pause_keeps_a_retry_for_later(runner: Runner) -> None:
    runner.start(step("a"))
    runner.end("a", "retry")
    runner.tell("pause")
    assert runner.desk.wait(600) == []
    assert runner.tell("resume") == ["execution.resumed"]
    assert runner.desk.wait(0) == ["step.requested"]


def test_a_held_request_waits_for_its_start(runner: Runner) -> None:
    assert runner.start(step("a"), hold=True) == ["execution.accepted"]
    assert runner.desk.wait(86400 * 2) == []
    assert runner.tell("pause") == ["command.refused"]
    assert runner.tell("start") == ["execution.started", "step.requested"]
    assert runner.tell("start") == []
    assert runner.tell("start", key="2") == ["command.refused"]
    assert runner.refusal() == ("start", "not_pending")
    assert runner.end("a")[-1] == "execution.completed"


def test_a_held_request_of_later_waits_for_both(runner: Runner) -> None:
    runner.start(step("a"), hold=True, run_at=NOW + timedelta(hours=1))
    assert runner.tell("start") == ["execution.started"]
    assert runner.desk.wait(3601) == ["step.requested"]


def test_a_later_pipeline_begins_when_due(runner: Runner) -> None:
    assert runner.start(step("a", call()), run_at=NOW + timedelta(hours=1)) == ["execution.accepted"]
    assert runner.desk.wait(3601) == ["execution.started", "step.requested", "step.requested"]


def test_the_executions_timeout_names_itself(runner: Runner) -> None:
    runner.start(*chain(step("a", call()), step("b")), timeout_s=90)
    runner.end("a")
    assert runner.desk.wait(90) == [
        *("step.cancelled", "hook.failed", "execution.failed", "step.control"),
    ]
    message = "the execution ran longer than its timeout (timeout_s) of 90 s"
    assert failure(runner) == ("execution_timeout", None, message)
    assert runner.desk.wait(86400 * 2) == []


def test_the_queue_timeout_names_itself(runner: Runner) -> None:
    runner.start(step("a", queue_timeout_s=7))
    runner.desk.wait(7)
    assert failure(runner) == (
        "queue_timeout",
        "a",
        "no worker took the step within its queue timeout of 7 s",
    )


def test_the_retry_policy_decides(runner: Runner) -> None:
    policy = {"only_on": ["http_503"], "backoff_s": 10, "jitter": 0, "backoff_max_s": 15}
    runner.start(step("a", retry=policy, max_attempts=9))
    runner.end("a", "fail", reason="http_503")
    assert runner.desk.wait(9) == []
    assert runner.desk.wait(1) == ["step.requested"]
    runner.end("a", "retry", reason="http_503", output={"retry_after_s": 40})
    assert runner.desk.wait(39) == []
    assert runner.desk.wait(1) == ["step.requested"]
    assert runner.end("a", "retry", reason="http_500")[-1] == "execution.failed"


def test_a_reason_to_stop_stops(runner: Runner) -> None:
    runner.start(step("a", retry={"stop_on": ["http_500"]}))
    assert runner.end("a", "retry", reason="http_500")[-1] == "execution.failed"


def test_a_cancellation_ends_what_is_out(runner: Runner) -> None:
    runner.start(*chain(step("a", call()), step("b")))
    told = runner.tell("cancel")
    assert told == [
        *("step.cancelled", "step.cancelled", "hook.failed", "execution.cancelled", "step.control"),
    ]
    assert runner.end("a") == []
    assert runner.end("a.enter.0.1") == []


def test_an_approval_ends_the_step(runner: Runner) -> None:
    told = runner.start(*chain(approval(), step("b")))
    assert told == ["execution.accepted", "execution.started", "step.waiting", "execution.waiting"]
    assert runner.asked() == []
    assert runner.tell("approve") == [
        *("approval.decided", "step.completed", "execution.resumed", "step.requested"),
    ]
    state = runner.desk.state(request())
    assert state.steps[0].output == {"decision": "approved", "approved_by": ["alice"], "form": {}}
    assert runner.end("b")[-1] == "execution.completed"


def test_actions_that_nobody_takes_do_not_pile_up(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that is away for long costs a bounded state: what is beyond is told as failed."""
    monkeypatch.setattr(pace, "FIRST", 256)  # there is room for the step behind its actions
    runner.start(step("a", *[call(f"Logger:{number}") for number in range(150)]))
    state = runner.desk.state(request())
    assert len(state.hooks) == 100
    failed = [event for event in runner.desk.history(ID) if isinstance(event, events.HookFailed)]
    assert [event.reason for event in failed] == ["too_many_actions"] * 50
    assert runner.end("a")[-1] == "execution.completed"


def test_actions_that_ended_are_forgotten_in_time(runner: Runner) -> None:
    runner.start(step("a", call(), goto("a"), max_step_runs=60))
    for visit in range(1, 61):
        runner.end(f"a.enter.0.{visit}")
        runner.end("a")
    assert failure(runner)[0] == "loop_limit"
    state = runner.desk.state(request())
    assert len(state.hooks) <= 22
    assert all(hook.plan.parameters is None for hook in state.hooks[:-2])


def test_a_pause_does_not_hasten_a_later_run(runner: Runner) -> None:
    runner.start(step("a"), run_at=NOW + timedelta(hours=1))
    runner.tell("pause")
    assert runner.tell("resume") == ["execution.resumed"]
    assert runner.desk.wait(3599) == []
    assert runner.desk.wait(2) == ["step.requested"]


def test_a_thousand_faults_make_a_short_message(runner: Runner) -> None:
    data = {f"field{number}": "${steps.b.result.missing}" for number in range(500)}
    parameters = {"method": "POST", "url": "https://a.example/", "headers": {}, "data": data}
    runner.start(step("a", kind="API", parameters=parameters), step("b"))
    assert len(failure(runner)[2]) == 2000
