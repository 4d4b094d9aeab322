"""The forms in which a pipeline may be written: S3's, S2's, and both at once."""

from pathlib import Path
from typing import Any

import pytest

from services.contracts.flow import Action
from services.jobs import documents, pipeline
from services.jobs.pipeline import Pipeline
from services.jobs.refused import Refused
from tests.pipelining import api, linked, logger, noop, tasks

EXAMPLES = Path(__file__).parents[3] / "examples" / "pipelines"
S3_EXAMPLE = EXAMPLES / "make-api-call.json"
RUN_BY = {
    "make-api-call.json": ["Make API Call"],
    "orders.yaml": ["Judge", "Approve", "Export"],
    "refund.yaml": ["Look up order", "Judge", "Tell failure", "Approve", "Pay", "Bookings"],
    "workbook-actions.yaml": ["task1", "task2", "task3"],
    "workbook-gotos.yaml": ["task1", "task2", "task3"],
    "workbook-utility-tasks.yaml": ["task1", "task2", "successLog", "task3", "errorLog"],
    "workflow-error-handling.yaml": ["task1", "task2", "handleError"],
}


def example(name: str) -> Any:
    raw = (EXAMPLES / name).read_bytes()
    return documents.parse_json(raw) if name.endswith(".json") else documents.parse_yaml(raw)


def names(found: Pipeline) -> list[str]:
    return [step.name for step in found.steps]


def step_of(found: Pipeline, name: str) -> Any:
    return next(step for step in found.steps if step.name == name)


def actions_of(found: Pipeline, name: str) -> list[tuple[str, str, str, str | None]]:
    return [(one.on, one.kind, one.written, one.when) for one in step_of(found, name).flow.actions]


# ---------------------------------------------------------------- S3


def test_s3s_example_works_verbatim() -> None:
    seed = """
    {
      "step_name": "Make API Call",
      "step_type": "API",
      "next_step_name": "",
      "prev_step_name": "",
      "parameters": {
        "method": "POST",
        "url": "https://httpbin.org/post?q=${query_param}",
        "data": {
          "key": "${value}"
        },
        "headers": {
          "content-type": "application/json"
        }
      },
      "is_terminal_step": true
    }
    """
    body = documents.parse_json(seed.encode())
    assert body == example(S3_EXAMPLE.name)
    found = pipeline.parse(body)
    (step,) = found.steps
    assert (step.name, step.kind, step.timeout_s, step.max_attempts) == ("Make API Call", "API", 600, 5)
    assert step.work.parameters == body["parameters"]
    assert (step.flow.next, step.flow.actions) == ((), ())
    assert [field["name"] for field in pipeline.form_of(found)] == ["query_param", "value"]


@pytest.mark.parametrize(
    "shape", [lambda s: s, lambda s: [s], lambda s: {"steps": [s]}], ids=["step", "list", "steps"]
)
def test_a_step_a_list_and_an_object_of_steps_are_the_same(shape: Any) -> None:
    found = pipeline.parse(shape(example(S3_EXAMPLE.name)))
    assert names(found) == ["Make API Call"]


def test_s3s_chain_is_followed_whatever_the_order_of_the_list() -> None:
    first, second, third = linked("first", "second", "third")
    found = pipeline.parse([third, first, second])
    assert names(found) == ["first", "second", "third"]
    assert [step.flow.next for step in found.steps] == [("second",), ("third",), ()]


def test_steps_that_name_no_others_run_as_they_are_listed() -> None:
    found = pipeline.parse(
        {"steps": [noop("b"), noop("a", **{"on-enter": "Logger:start"})], "services": logger()}
    )
    assert names(found) == ["b", "a"]
    assert [step.flow.next for step in found.steps] == [("a",), ()]


# ---------------------------------------------------------------- S2


@pytest.mark.parametrize("name", RUN_BY)
def test_every_example_is_a_pipeline(name: str) -> None:
    body = example(name)
    pinned = pipeline.with_datasets(
        body, {id: {"revision": 1, "body": {}} for id in pipeline.datasets_named(body)}
    )
    assert names(pipeline.parse(pinned)) == RUN_BY[name]


def test_every_file_of_the_examples_is_tested() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {*RUN_BY, "service.yaml"}


def test_a_fragment_of_services_alone_has_no_steps_until_it_is_merged() -> None:
    fragment = example("service.yaml")
    with pytest.raises(Refused) as caught:
        pipeline.parse(fragment)
    (error,) = caught.value.errors
    assert str(error) == (
        "steps: expected a list of 1 to 100 steps, found nothing: services alone run nothing"
    )
    body: Any = tasks(task1={"action": "Nova:some", "on-exit": "Logger:start"})
    for name, service in fragment["Service"].items():
        body = pipeline.with_service(body, name, service)
    assert actions_of(pipeline.parse(body), "task1") == [("exit", "call", "Logger:start", None)]


def test_utility_tasks_are_called_on_enter_and_gone_to_after() -> None:
    found = pipeline.parse(example("workbook-utility-tasks.yaml"))
    task1 = step_of(found, "task1")
    assert task1.flow.next == ("task2", "successLog")
    assert actions_of(found, "task1") == [
        ("enter", "call", "startLog", None),
        ("error", "goto", "task3", None),
        ("error", "goto", "errorLog", None),
    ]
    assert task1.flow.actions[0].parameters["query"]["type"] == "enter"
    assert step_of(found, "errorLog").work.parameters["query"]["error"] == {"$.execution.error": None}


def test_hooks_name_actions_with_conditions() -> None:
    found = pipeline.parse(example("workbook-actions.yaml"))
    assert step_of(found, "task1").flow.next == ("task2",)
    assert actions_of(found, "task1") == [
        ("enter", "call", "Logger:start", None),
        ("exit", "call", "Logger:success", "$.execution.error = null"),
        ("exit", "call", "Logger:error", "$.execution.error != null"),
        ("error", "goto", "task3", None),
    ]


def test_gotos_stand_beside_calls() -> None:
    found = pipeline.parse(example("workbook-gotos.yaml"))
    assert step_of(found, "task1").flow.next == ()
    assert actions_of(found, "task1")[1:] == [
        ("exit", "goto", "std:goto(task2)", "$.execution.error = null"),
        ("exit", "call", "Logger:success", "$.execution.error = null"),
        ("exit", "goto", "std:goto(task3)", "$.execution.error != null"),
        ("exit", "call", "Logger:error", "$.execution.error != null"),
    ]
    assert [one.step for one in step_of(found, "task1").flow.actions if one.kind == "goto"] == [
        "task2",
        "task3",
    ]


def test_on_exit_with_a_task_alone_goes_there_whatever_happened() -> None:
    found = pipeline.parse(example("workflow-error-handling.yaml"))
    assert actions_of(found, "task1") == [("exit", "goto", "task2", None)]
    assert step_of(found, "handleError").kind == "NOOP"


def test_a_call_of_a_service_is_resolved() -> None:
    found = pipeline.parse(example("workbook-actions.yaml"))
    assert step_of(found, "task1").flow.actions[0] == Action(
        written="Logger:start",
        kind="call",
        on="enter",
        parameters={
            "method": "GET",
            "allow_host": True,
            "url": "${LoggerURL}/log",
            "headers": {},
            "query": {
                "task": {"$.execution.task": None},
                "executon": {"$.execution.id": None},
                "type": "enter",
            },
        },
    )


def test_what_a_call_adds_up_to() -> None:
    """Service, action and the step itself: the later one wins, headers in any case."""
    services = logger(
        headers={"Accept": "text/plain", "x-one": "1"},
        query={"a": 1, "b": 1},
        timeout_s=5,
        actions={
            "start": {
                "parameters": {
                    "url": "log",
                    "method": "post",
                    "headers": {"accept": "*/*"},
                    "query": {"b": 2},
                    "data": {"x": 1},
                    "timeout_s": 6,
                }
            }
        },
    )
    own = {"query": {"c": 3}, "data": {"y": 2}, "success_codes": ["2xx"], "idempotency_header": ""}
    body = {"Service": services, **tasks(a={"action": "Logger:start", "parameters": own})}
    (step,) = pipeline.parse(body).steps
    assert step.work.parameters == {
        "method": "POST",
        "url": "https://log.example/v1/log",
        "headers": {"x-one": "1", "accept": "*/*"},
        "query": {"a": 1, "b": 2, "c": 3},
        "data": {"x": 1, "y": 2},
        "timeout_s": 6,
        "success_codes": ["2xx"],
        "idempotency_header": "",
    }


def test_hooks_take_every_form() -> None:
    hooks = {
        "on-enter": {"Logger:start": None},
        "on-exit": [
            "std:no-op",
            {"action": "Logger:start", "wait": True, "timeout_s": 7, "max_attempts": 1, "when": "$(1 = 1)"},
            {"std:goto( b )": {"$.flag": None}, "Logger:start": "$.flag"},
        ],
        "on-error": "b",
    }
    found = pipeline.parse({"steps": [noop("a", **hooks), noop("b")], "services": logger()})
    actions = step_of(found, "a").flow.actions
    assert [(one.on, one.kind, one.when) for one in actions] == [
        ("enter", "call", None),
        ("exit", "noop", None),
        ("exit", "call", "1 = 1"),
        ("exit", "goto", "$.flag"),
        ("exit", "call", "$.flag"),
        ("error", "goto", None),
    ]
    assert (actions[2].wait, actions[2].timeout_s, actions[2].max_attempts) == (True, 7, 1)
    assert (actions[0].wait, actions[0].timeout_s, actions[0].max_attempts) == (False, 30, 3)
    assert actions[3].step == "b"


def test_a_hook_adds_to_the_call_it_makes() -> None:
    hook = {"action": "Logger:start", "parameters": {"query": {"why": "${reason}"}}}
    found = pipeline.parse({"steps": [{**api(), "on-error": hook}], "services": logger()})
    (action,) = found.steps[0].flow.actions
    assert action.parameters["query"] == {"task": {"$.execution.task": None}, "why": "${reason}"}


def test_conditional_successors_are_gotos_and_the_chain_is_what_is_left() -> None:
    steps = linked("a", "b", "c", a={"on-success": [{"c": "$.fast"}]})
    found = pipeline.parse(steps)
    assert step_of(found, "a").flow.next == ("b",)
    assert actions_of(found, "a") == [("success", "goto", "c", "$.fast")]


def test_either_form_may_use_the_keys_of_the_other() -> None:
    found = pipeline.parse(
        {
            "Service": logger(),
            **tasks(
                "Workflow",
                ask={"step_type": "WAIT_FOR_APPROVAL", "next_step_name": "tell", "pause_before": True},
                tell={"action": "Logger:start", "is_terminal_step": True, "prev_step_name": "ask"},
            ),
        }
    )
    assert names(found) == ["ask", "tell"]
    assert found.steps[0].flow.pause_before
