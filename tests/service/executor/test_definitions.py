"""Pipelines as their authors write them, compiled and run by the manager."""

from typing import Any

from services.contracts import events
from services.contracts.commands import Definition, DefinitionState
from services.contracts.status import Status
from tests.pipelining import api, linked, noop
from tests.service.executor.house import NOW, TENANT, Desk, command, job, outcome


def define(desk: Desk, body: Any, revision: int = 1) -> list[str]:
    """A pipeline comes to the manager."""
    return desk.say(
        DefinitionState(
            kind="pipeline",
            tenant=TENANT,
            id="orders",
            revision=revision,
            changed_at=NOW,
            deleted=False,
            body=body,
        )
    )


def wanted(values: Any = None, **changes: Any) -> Any:
    """Another service names the pipeline and brings values."""
    parameters = {"values": values, "time_range": None}
    return job(job_type="pipeline", definition_id="orders", parameters=parameters, **changes)


def ends(desk: Desk, how: str = "done", **changes: Any) -> list[str]:
    """The latest order ends."""
    order = desk.orders()[-1]
    more = {"reason": "r", "message": "m"} if how != "done" else {}
    return desk.say(outcome(order.attempt_id, outcome=how, **{**more, **changes}))


def test_a_request_that_names_a_pipeline_waits_for_it_and_is_pinned_to_its_revision(desk: Desk) -> None:
    assert desk.say(wanted()) == []
    define(desk, {"steps": linked("a", "b")})
    told = desk.wait(31)
    assert told[:1] == ["execution.accepted"]
    define(desk, {"steps": linked("c")}, revision=2)
    assert ends(desk)[-1] == "step.requested"
    assert ends(desk)[-1] == "execution.completed"
    pinned = desk.state(wanted()).request
    assert pinned is not None
    assert pinned.definition is not None
    assert (pinned.definition.kind, pinned.definition.revision) == ("pipeline", 1)


def test_an_unknown_pipeline_is_named_as_such(desk: Desk) -> None:
    desk.say(wanted())
    desk.wait(31)
    rejected = desk.history(wanted().execution_id)[-1]
    assert isinstance(rejected, events.ExecutionRejected)
    assert str(rejected.errors[0].message) == 'unknown pipeline "orders" in tenant acme'


def test_a_dataset_of_that_name_is_no_pipeline(desk: Desk) -> None:
    desk.say(
        DefinitionState(
            kind="dataset", tenant=TENANT, id="orders", revision=1, changed_at=NOW, deleted=False, body={}
        )
    )
    assert desk.say(wanted()) == []
    assert desk.wait(31)[0] == "execution.rejected"


def test_definitions_of_other_kinds_are_not_the_managers(desk: Desk) -> None:
    other = DefinitionState(
        kind="schedule", tenant=TENANT, id="x", revision=1, changed_at=NOW, deleted=False, body={}
    )
    assert desk.say(other) == ["definition.state.dlq"]


def test_defaults_of_the_form_are_values_like_others(desk: Desk) -> None:
    form = [{"name": "amount", "type": "integer", "default": 7}, {"name": "who", "type": "string"}]
    call = api(parameters={"url": "https://shop.example/${who}", "data": {"amount": "${amount}"}})
    define(desk, {"form": form, "steps": [{**call, "is_terminal_step": True}]})
    desk.say(wanted({"who": "ada"}))
    found = desk.orders()[-1].parameters
    assert (found["url"], found["data"]) == ("https://shop.example/ada", {"amount": 7})


def test_mistrals_third_workbook_goes_both_ways(desk: Desk) -> None:
    log = {"parameters": {"url": "/log", "method": "GET", "query": {"task": {"$.execution.task": None}}}}
    actions = {"start": log, "success": log, "error": log}
    service = {"type": "HTTP", "parameters": {"baseUrl": "https://log.example", "actions": actions}}
    body = {
        "Service": {"Logger": service},
        "Workbook": {
            "tasks": {
                "task1": {
                    "on-enter": "Logger:start",
                    "action": "std:no-op",
                    "on-exit": [
                        {"std:goto(task2)": "$.execution.error = null"},
                        {"Logger:success": "$.execution.error = null"},
                        {"std:goto(task3)": "$.execution.error != null"},
                        {"Logger:error": "$.execution.error != null"},
                    ],
                },
                "task2": {"action": "std:no-op"},
                "task3": {"action": "std:no-op"},
            }
        },
    }
    define(desk, body)
    for key, how, ways in (("good", "done", "task2"), ("bad", "fail", "task3")):
        request = wanted(key=key)
        desk.say(request)
        first = [order for order in desk.orders() if order.step == "task1"][-1]
        failed = {"reason": "r", "message": "m"} if how == "fail" else {}
        desk.say(outcome(first.attempt_id, request, outcome=how, **failed))
        mine = [order for order in desk.orders() if order.execution_id == request.execution_id]
        assert mine[-1].step == ways
        assert [order.kind for order in mine] == ["API", "NOOP", "API", "NOOP"]
        assert mine[0].parameters["query"] == "task=task1"
        told = desk.say(outcome(mine[-1].attempt_id, request))
        assert told[-1] == "execution.completed"


def test_an_amendment_is_planned_like_a_request(desk: Desk) -> None:
    form = [{"name": "amount", "type": "integer", "max": 10}]
    steps = [
        {"step_name": "ok", "step_type": "WAIT_FOR_APPROVAL", "next_step_name": "pay"},
        {**api("pay", parameters={"data": {"amount": "${amount}"}}), "prev_step_name": "ok"},
    ]
    define(desk, {"form": form, "steps": [steps[0], {**steps[1], "is_terminal_step": True}]})
    desk.say(wanted({"amount": 1}))
    assert desk.say(command("amend", values={"amount": 11})) == ["command.refused"]
    assert desk.say(command("amend", key="2", values={"amount": 9})) == ["execution.amended", "step.waiting"]
    refused = desk.history(wanted().execution_id)[-3]
    assert isinstance(refused, events.CommandRefused)
    assert refused.reason == "bad_form"
    seen = desk.history(wanted().execution_id)[-1].content_hash  # type: ignore[union-attr]
    carol = command("approve", requested_by="carol", role="admin", command_id="c" * 40, content_hash=seen)
    desk.say(carol)
    assert desk.orders()[-1].parameters["data"] == {"amount": 9}
    assert desk.state(wanted()).status is Status.RUNNING


def test_a_rerun_with_the_latest_revision_runs_it(desk: Desk) -> None:
    define(desk, {"steps": linked("a", "b")})
    desk.say(wanted())
    ends(desk)
    ends(desk, "fail")
    newer = Definition(kind="pipeline", id="orders", revision=2, body={"steps": linked("a", "c")})
    desk.say(command("rerun", reuse_results=True, definition=newer))
    again = desk.sent("job.requested")[-1]
    assert again.definition == newer
    desk.say(again)
    mine = [order.step for order in desk.orders() if order.execution_id == again.execution_id]
    assert mine == ["a"], "its follower changed, and so did what it is followed by"


def test_a_way_back_on_error_does_not_make_the_last_step_the_first(desk: Desk) -> None:
    mail = noop("Mail", **{"on-error": [{"std:goto(Export)": "$.execution.error.reason = 'smtp'"}]})
    define(desk, {"steps": [noop("Export"), mail]})
    request = wanted()
    desk.say(request)
    outcomes: list[tuple[str, dict[str, str]]] = [
        ("Export", {}),
        ("Mail", {"outcome": "fail", "reason": "smtp", "message": "m"}),
        ("Export", {}),
        ("Mail", {}),
    ]
    for name, how in outcomes:
        order = desk.orders()[-1]
        assert order.step == name
        told = desk.say(outcome(order.attempt_id, request, **how))
    assert told[-1] == "execution.completed"
