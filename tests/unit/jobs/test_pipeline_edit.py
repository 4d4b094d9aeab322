"""Services, actions, hooks and datasets added to a definition that stands: each gives a new body."""

import copy
from typing import Any

import pytest

from services.jobs import pipeline
from services.jobs.refused import Refused
from tests.pipelining import linked, logger, noop, tasks

ACTION = {"parameters": {"url": "/stop", "method": "POST", "data": {}}}


@pytest.mark.parametrize(
    "body", [noop("a"), [noop("a")], {"steps": [noop("a")]}, tasks(a={"action": "std:no-op"})]
)
def test_a_pipeline_is_made_up_bit_by_bit(body: Any) -> None:
    before = copy.deepcopy(body)
    made = pipeline.with_service(body, "Logger", logger()["Logger"])
    made = pipeline.with_action(made, "Logger", "stop", ACTION)
    made = pipeline.with_hook(made, "a", "exit", {"Logger:stop": "$.execution.error != null"})
    made = pipeline.with_hook(made, "a", "exit", "Logger:start")
    (step,) = pipeline.parse(made).steps
    assert [(one.written, one.when) for one in step.flow.actions] == [
        ("Logger:stop", "$.execution.error != null"),
        ("Logger:start", None),
    ]
    assert body == before  # the revision before stays what it is


def test_a_service_goes_where_the_others_are_and_replaces_its_namesake() -> None:
    body = {"Service": logger(), "steps": [noop("a")]}
    other = logger(baseUrl="https://other.example")["Logger"]
    assert pipeline.with_service(body, "Logger", other)["Service"] == {"Logger": other}
    assert pipeline.with_service(body, "Nova", other)["Service"] == {**logger(), "Nova": other}
    both = {"services": logger(), "Service": {"Nova": other}, "steps": [noop("a")]}
    assert pipeline.with_service(both, "Logger", other)["services"] == {"Logger": other}
    assert pipeline.with_service([noop("a")], "Nova", other) == {
        "steps": [noop("a")],
        "services": {"Nova": other},
    }


def test_an_action_needs_its_service() -> None:
    with pytest.raises(Refused, match='service: unknown service "Log"; known: Logger'):
        pipeline.with_action({"services": logger(), "steps": [noop("a")]}, "Log", "stop", ACTION)


def test_a_hook_needs_its_step_and_an_occasion() -> None:
    with pytest.raises(Refused, match='step: unknown step "x"; known: a, b'):
        pipeline.with_hook(linked("a", "b"), "x", "exit", "std:no-op")
    with pytest.raises(Refused, match='step: unknown step "x"; known: a'):
        pipeline.with_hook(tasks(a={}), "x", "exit", "std:no-op")
    with pytest.raises(Refused, match='on: unknown occasion "start"; known: enter, exit, success, error'):
        pipeline.with_hook(linked("a"), "a", "start", "std:no-op")


@pytest.mark.parametrize("body", [None, 7, "x", {}, {"steps": 1}, {"Workbook": []}, {"services": 1}])
def test_nothing_can_be_added_to_what_is_no_definition(body: Any) -> None:
    assert pipeline.datasets_named(body) == frozenset()
    with pytest.raises(Refused):
        pipeline.with_hook(body, "a", "exit", "std:no-op")
    with pytest.raises(Refused):
        pipeline.with_action(body, "Logger", "stop", ACTION)


def test_datasets_are_named_in_every_form_and_pinned_into_the_body() -> None:
    export = {"step_type": "EXPORT", "parameters": {"dataset": "d"}}
    bodies = ({**export, "step_name": "a"}, [{**export, "step_name": "a"}], tasks(a=export))
    for body in bodies:
        assert pipeline.datasets_named(body) == {"d"}
        pinned = pipeline.with_datasets(body, {"d": {"revision": 2, "body": {}}})
        found = pipeline.parse(pinned)
        assert found.datasets == {"d"}
        assert found.pinned == {"d": {"revision": 2, "body": {}}}


def test_what_a_user_pinned_does_not_stay() -> None:
    body = {"steps": [noop("a")], "datasets": {"d": {"revision": 1, "body": {}}}}
    assert pipeline.with_datasets(body, {}) == {"steps": [noop("a")]}
    assert pipeline.with_datasets([noop("a")], {}) == [noop("a")]
