"""Plans of pipelines: what a request becomes, and every reason not to take it."""

from typing import Any

import msgspec
import pytest

from services import jobs
from services.contracts import flow
from services.contracts.commands import Definition, JobRequested
from services.contracts.flow import Action, Flow
from services.jobs.pipeline import kinds
from services.jobs.refused import Refused
from tests import pipelining
from tests.pipelining import api, linked, logger, noop, tasks

DATASET = {
    "source": "flights",
    "table": "public.flights",
    "columns": [
        {"name": "carrier", "type": "string"},
        {"name": "month", "type": "integer"},
        {"name": "at", "type": "timestamp"},
    ],
    "batch": {"column": "carrier"},
    "filters": ["month"],
    "time_column": "at",
}


def exporting(**parameters: Any) -> dict[str, Any]:
    step = {
        "step_name": "x",
        "step_type": "EXPORT",
        "parameters": {"dataset": "flights-report", **parameters},
    }
    return {"steps": [step], "datasets": {"flights-report": {"revision": 3, "body": DATASET}}}


def refusals(request: JobRequested) -> list[str]:
    with pytest.raises(Refused) as caught:
        jobs.plan(request)
    return [str(error) for error in caught.value.errors]


def test_a_plan_carries_templates_and_flows() -> None:
    links = {"on-exit": "Logger:start", "wait_before_s": 5, "step_type": "API"}
    first, second = linked("first", "second", first=links)
    steps = [
        {
            **api("first", parameters={"data": {"n": "${n}"}}),
            **{k: v for k, v in first.items() if k != "step_type"},
        },
        second,
    ]
    planned = jobs.plan(pipelining.request({"services": logger(), "steps": steps}, {"n": 7}))
    assert [(one.name, one.kind, one.timeout_s, one.max_attempts) for one in planned] == [
        ("first", "API", 600, 5),
        ("second", "NOOP", 600, 5),
    ]
    assert planned[0].parameters["data"] == {"n": "${n}"}
    assert flow.flow_of(planned[0].flow) == Flow(
        next=("second",),
        wait_before_s=5.0,
        actions=(
            Action(
                written="Logger:start",
                kind="call",
                on="exit",
                parameters={
                    "method": "GET",
                    "url": "https://log.example/v1/log",
                    "headers": {},
                    "query": {"task": {"$.execution.task": None}},
                },
            ),
        ),
    )
    assert flow.flow_of(planned[1].flow) == Flow()


def test_the_first_step_is_the_first_of_the_plan() -> None:
    last, first = linked("b", "a")[::-1]
    assert [one.name for one in jobs.plan(pipelining.request([last, first]))] == ["b", "a"]


def test_a_pipeline_needs_a_definition_of_its_kind() -> None:
    expected = ["pipeline: expected the id of a pipeline, found nothing; GET /v1/pipelines lists them"]
    assert refusals(pipelining.request([], definition=None)) == expected
    other = Definition(kind="dataset", id="d", revision=1, body=DATASET)
    assert refusals(pipelining.request([], definition=other)) == expected


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"steps": [noop("a/b")]}, "definition.body.steps[0].step_name"),
        ([noop("a/b")], "definition.body[0].step_name"),
        (noop("a/b"), "definition.body.step_name"),
        (7, "definition.body"),
    ],
)
def test_a_bad_definition_is_told_where_it_stands(body: Any, pointer: str) -> None:
    (error,) = refusals(pipelining.request(body))
    assert error.partition(": ")[0] == pointer


def test_bad_values_are_told_all_at_once() -> None:
    body = {"form": [{"name": "a"}, {"name": "b", "type": "integer"}], "steps": [noop("s")]}
    request = pipelining.request(body, {"b": "x", "c": 1})
    assert [error.partition(":")[0] for error in refusals(request)] == ["values.c", "values.a", "values.b"]


def test_a_pipeline_has_no_time_range_and_no_other_parameters() -> None:
    parameters = {"values": {}, "time_range": {"from": "x"}, "params": {}}
    assert refusals(pipelining.request([noop("s")], parameters=parameters)) == [
        "params: unknown field; known: values, time_range",
        "timeRange: a pipeline has no time range; remove the field",
    ]


UNFILLABLE: dict[str, tuple[dict[str, Any], Any, str]] = {
    "list in a path": ({"url": "https://shop.example/${x}"}, [1], "url"),
    "dots in a path": ({"url": "https://shop.example/${x}/y"}, "..", "url"),
    "line break in a header": ({"headers": {"a": "${x}"}}, "a\r\nb: c", "headers.a"),
    "object in a header": ({"headers": {"a": "${x}"}}, {"b": 1}, "headers.a"),
    "nothing there": ({"data": {"a": "${x.y}"}}, {"z": 1}, "data.a"),
    "bad base URL": ({"url": "${x}/log", "allow_host": True}, "file:///etc", "url"),
    "forbidden host": ({"url": "https://${x}.example/", "allow_host": True}, "a@b", "url"),
    "type error of an expression": ({"data": {"a": "$($.x < 'a')"}}, 1, "data.a"),
}


@pytest.mark.parametrize("case", UNFILLABLE.values(), ids=UNFILLABLE)
def test_values_that_fill_nothing_are_refused_when_the_request_is_made(case: tuple[Any, Any, str]) -> None:
    parameters, value, member = case
    (error,) = refusals(pipelining.request({"steps": [api(parameters=parameters)]}, {"x": value}))
    assert error.startswith(f"definition.body.steps[0].parameters.{member}: ")


def test_values_of_a_hooks_call_are_checked_too() -> None:
    body = {
        "Service": logger(baseUrl={"$.LoggerURL": None}),
        **tasks(a={"action": "std:no-op", "on-exit": "Logger:start"}),
    }
    assert len(jobs.plan(pipelining.request(body, {"LoggerURL": "https://log.example"}))) == 1
    errors = refusals(pipelining.request(body, {"LoggerURL": "log.example"}))
    assert [error.partition(": ")[0] for error in errors] == [
        "definition.body.Service.Logger.parameters.baseUrl",
        "definition.body.Service.Logger.parameters.actions.start.parameters.url",
    ]


def test_an_optional_value_that_is_used_must_be_there() -> None:
    step = api(parameters={"data": {"a": "${x}"}})
    body = {"form": [{"name": "x", "required": False}], "steps": [step]}
    assert refusals(pipelining.request(body, {})) == [
        "definition.body.steps[0].parameters.data.a: expected a value for ${x}, found none"
    ]
    asked = {**body, "steps": [api(parameters={"data": {"a": "$.x"}})]}
    assert len(jobs.plan(pipelining.request(asked, {}))) == 1  # an expression reads null


def test_an_optional_value_that_is_sent_as_null_is_filled_as_null() -> None:
    step = api(parameters={"data": {"a": "${x}", "b": "no. ${x}"}})
    body = {"form": [{"name": "x", "required": False}], "steps": [step]}
    assert len(jobs.plan(pipelining.request(body, {"x": None}))) == 1


def test_what_later_steps_give_is_not_asked_for_yet() -> None:
    data = {
        "a": "${steps.s.result.id}",
        "b": "${execution.id}",
        "c": "$.execution.error",
        "d": "${secrets.k}",
    }
    body = [noop("s"), api(parameters={"data": data, "headers": {"x": "${request.tag}"}})]
    assert jobs.plan(pipelining.request(body))[1].parameters["data"] == data


def test_an_export_is_planned_with_the_values_of_the_request() -> None:
    body = exporting(
        batches=["${carrier}"],
        filters=[{"column": "month", "op": "eq", "value": "${month}"}],
        time_range={"from": "2013-01-01T00:00:00Z", "to": "${until}"},
    )
    values = {"carrier": "UA", "month": 2, "until": "2013-02-01T00:00:00Z"}
    (planned,) = jobs.plan(pipelining.request(body, values))
    assert (planned.kind, planned.timeout_s, planned.max_attempts) == ("EXPORT", 21600, 5)
    alone = jobs.plan(
        pipelining.request(
            None,
            job_type="export",
            definition=Definition(kind="dataset", id="flights-report", revision=3, body=DATASET),
            parameters={
                "params": {
                    "batches": ["UA"],
                    "filters": [{"column": "month", "op": "eq", "value": 2}],
                },
                "time_range": {"from": "2013-01-01T00:00:00Z", "to": "2013-02-01T00:00:00Z"},
            },
        )
    )
    assert planned.parameters == {**alone[0].parameters, "among_steps": True}


def test_what_an_export_cannot_be_is_told_where_it_stands() -> None:
    body = exporting(batches=["${carrier}"], columns=["pilot"], time_range={"from": "${day}", "to": "x"})
    errors = refusals(pipelining.request(body, {"carrier": "../x", "day": "2013-01-01"}))
    at = "definition.body.steps[0].parameters"
    assert [error.partition(": ")[0] for error in errors] == [
        f"{at}.columns[0]",
        f"{at}.time_range.from",
        f"{at}.time_range.to",
        f"{at}.batches[0]",
    ]
    body["datasets"]["flights-report"]["body"] = {**DATASET, "table": "x"}
    (error,) = refusals(pipelining.request(body, {"carrier": "UA", "day": "2013-01-01"}))
    assert error.startswith("definition.body.datasets.flights-report.body.table: ")


def test_only_kinds_that_are_planned_here_are_not_filled_by_the_manager() -> None:
    assert [name for name, kind in kinds.KINDS.items() if kind.plan] == ["EXPORT"]


def test_a_plan_is_json() -> None:
    body = {"services": logger(), "steps": [api(retry={"only_on": ["timeout"]})]}
    (planned,) = jobs.plan(pipelining.request(body))
    assert msgspec.json.decode(msgspec.json.encode(planned.flow)) == planned.flow
