"""Everything that may be wrong with a definition, and the words for it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contracts.errors import FieldError
from services.jobs import pipeline
from services.jobs.pipeline import calls, load
from services.jobs.pipeline.size import PLAN_BYTES_MAX
from services.jobs.pipeline.work import Work
from services.jobs.refused import Refused
from tests.pipelining import api, linked, logger, noop


def refusals(body: Any) -> list[str]:
    with pytest.raises(Refused) as caught:
        pipeline.parse(body)
    return [str(error) for error in caught.value.errors]


def listed(*steps: Any, **changes: Any) -> dict[str, Any]:
    return {"steps": [*steps], **changes}


def links(following: str, previous: str, *, terminal: bool) -> dict[str, Any]:
    return {"next_step_name": following, "prev_step_name": previous, "is_terminal_step": terminal}


def acting(**changes: Any) -> dict[str, Any]:
    action = {"parameters": {"url": "/log", "method": "GET", **changes}}
    steps = [noop(name, **{"on-enter": "Logger:start"}) for name in "abc"]
    return {"services": logger(actions={"start": action}), "steps": steps}


REFUSED = yaml.safe_load((Path(__file__).parent / "refused_pipelines.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", REFUSED, ids=[case["name"] for case in REFUSED])
def test_a_bad_definition_is_refused_with_every_fault(case: dict[str, Any]) -> None:
    assert refusals(case["body"]) == case["faults"]


def test_names_that_differ_by_composition_are_one_file() -> None:
    composed, taken_apart = "caf\u00e9", "cafe\u0301"
    assert refusals(listed(noop(composed), noop(taken_apart))) == [
        f'steps[1].step_name: "{taken_apart}" gives the same log file as "{composed}"'
    ]


@pytest.mark.parametrize("name", ["Make API Call", "a.b", "Überweisung", "-x", "com10", "x" * 100, "std"])
def test_names_that_are_safe_files_are_taken(name: str) -> None:
    assert [step.name for step in pipeline.parse(listed(noop(name))).steps] == [name]


def test_a_body_has_at_most_100_steps_and_64_kib() -> None:
    assert len(pipeline.parse(listed(*(noop(f"s{n}") for n in range(load.STEPS_MAX)))).steps) == 100
    (error,) = refusals(listed(api(parameters={"data": {"x": "y" * load.BYTES_MAX}})))
    assert error.startswith("body: expected at most 65536 bytes of JSON, found 65")
    assert refusals(listed(*(noop(f"s{n}") for n in range(101)))) == [
        "steps: expected a list of 1 to 100, found 101 entries"
    ]
    pinned = {"d": {"revision": 1, "body": "x" * load.BYTES_MAX}}  # not the user's
    assert pipeline.parse(listed(noop("a"), datasets=pinned)).pinned == pinned


def test_a_large_action_is_not_copied_into_hundreds_of_hooks() -> None:
    action = {"start": {"parameters": {"url": "/", "method": "POST", "data": {"x": "y" * 20_000}}}}
    steps = [noop(f"s{n}", **{"on-enter": ["Logger:start"] * 10}) for n in range(10)]
    (error,) = refusals({"services": logger(actions=action), "steps": steps})
    wanted = f"body: expected at most {PLAN_BYTES_MAX} bytes of steps with the actions that their hooks call"
    assert error.startswith(wanted)


def test_what_is_no_json_is_refused_before_anything_is_read() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert refusals(listed(noop("a", wait_before_s=float("inf")))) == [
        "steps[0].wait_before_s: expected a number from 0 to 2592000, found inf"
    ]
    for body in ({"steps": {1, 2}}, {"steps": deep}, {"steps": "\ud800"}, {"steps": 10**400}):
        assert refusals(body)


def test_a_loop_with_a_condition_or_an_error_on_its_way_is_taken() -> None:
    poll = linked("ask", "end", ask={"on-success": {"std:goto(ask)": "$.steps.ask.result.ready != true"}})
    again = linked("ask", "end", ask={"on-error": "ask"})
    for steps in (poll, again):
        assert [step.name for step in pipeline.parse(steps).steps] == ["ask", "end"]


def test_a_step_may_name_as_its_former_one_that_goes_to_it() -> None:
    ask, end = linked("ask", "end", ask={"on-error": "std:goto(mend)"})
    mend = noop("mend", **links("", "ask", terminal=True))
    assert len(pipeline.parse([ask, end, mend]).steps) == 3
    assert refusals([ask, end, {**mend, "prev_step_name": "end"}]) == [
        '[2].prev_step_name: expected "", found "end": no step names this one as its next'
    ]


def test_a_step_reads_what_may_have_run_before_it_on_any_way() -> None:
    reading = {"data": {"x": "${steps.ask.result}", "y": "$.steps.mend.result"}}
    ask, _ = linked("ask", "end", ask={"on-error": "mend"})
    end = {**api("end", parameters=reading), **links("", "ask", terminal=True)}
    steps = [ask, end, noop("mend", **{"on-success": "end"})]
    assert len(pipeline.parse(steps).steps) == 3
    steps[2] = noop("mend")
    assert refusals(steps) == ["[1].parameters.data.y: unknown earlier step steps.mend; known: ask"]


def test_successors_that_follow_together_read_one_another_in_order() -> None:
    reading = api("c", parameters={"data": {"x": "${steps.b.result}"}})
    steps = [noop("a", **{"on-success": ["b", "c"]}), noop("b"), reading]
    assert [step.name for step in pipeline.parse(steps).steps] == ["a", "b", "c"]
    steps[0] = noop("a", **{"on-success": ["c", "b"]})
    assert refusals(steps) == ["[2].parameters.data.x: unknown earlier step steps.b; known: a"]


def test_a_fault_of_an_action_is_told_once_however_many_hooks_call_it() -> None:
    (error,) = refusals(acting(query={"a": "$.x ="}))
    assert error.startswith("services.Logger.parameters.actions.start.parameters.query.a: column 6")


def test_policies_are_kept() -> None:
    step = api(
        retry={
            "max_attempts": 7,
            "backoff_s": 90,
            "jitter": 0,
            "only_on": ["timeout"],
            "stop_on": ["http_501"],
        },
        timeout_s=9,
        total_timeout_s=90,
        queue_timeout_s=60,
        wait_before_s=1,
        wait_after_s=2.5,
        pause_before=True,
        fail_on="$.result.body.ok != true",
    )
    limits = [{"key": "key:${customer}", "max": 1, "holds_paused": True}, {"key": "tenant", "max": 5}]
    body = listed(step, priority="low", timeout_s=3600, max_step_runs=10, limits=limits)
    found = pipeline.parse(body)
    (planned,) = found.steps
    flow = planned.flow
    assert (planned.max_attempts, planned.timeout_s) == (7, 9)
    assert (flow.retry.backoff_s, flow.retry.backoff_max_s, flow.retry.jitter) == (90.0, 90.0, 0.0)
    assert (flow.retry.only_on, flow.retry.stop_on) == (("timeout",), ("http_501",))
    assert flow.total_timeout_s == 90
    assert (flow.queue_timeout_s, flow.wait_before_s, flow.wait_after_s) == (60, 1.0, 2.5)
    assert (flow.pause_before, flow.fail_on, flow.max_step_runs) == (True, "$.result.body.ok != true", 10)
    assert (found.priority, found.timeout_s) == (0, 3600)
    assert pipeline.limits_of(found, "p", {"customer": 7}) == [
        {"key": "key:7", "max": 1, "holds_paused": True},
        {"key": "tenant", "max": 5, "holds_paused": False},
    ]
    assert [field["name"] for field in pipeline.form_of(found)] == ["customer"]


def test_an_approval_has_defaults_and_keeps_what_it_is_told() -> None:
    bare = listed({"step_name": "a", "step_type": "WAIT_FOR_APPROVAL"})  # S3: there are no parameters
    (step,) = pipeline.parse(bare).steps
    assert step.work.parameters == {
        "approvers": [],
        "groups": [],
        "quorum": 1,
        "form": [],
        "expires_after_s": 30 * 24 * 3600,
        "on_expiry": "fail",
    }
    assert (step.timeout_s, step.max_attempts) == (30 * 24 * 3600, 1)
    form = [{"name": "ok", "type": "boolean", "required": True}]
    told = {
        "approvers": ["ada"],
        "groups": ["finance"],
        "quorum": 2,
        "form": form,
        "expires_after_s": 60,
        "on_expiry": "skip",
    }
    bare["steps"][0]["parameters"] = told
    (step,) = pipeline.parse(bare).steps
    assert (step.work.parameters, step.timeout_s) == (told, 60)


# ---------------------------------------------------------------- whatever is sent

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["a", "b", "c", ""])
HOOKS = st.lists(
    st.sampled_from(
        ["a", "b", "std:goto(c)", "std:no-op", "Logger:start", {"b": "$.execution.error = null"}]
    ),
    min_size=1,
    max_size=3,
)
STEPS = st.fixed_dictionaries(
    {"step_name": NAMES, "step_type": st.sampled_from(["NOOP", "TRANSFORM"])},
    optional={
        "next_step_name": NAMES,
        "prev_step_name": NAMES,
        "is_terminal_step": st.booleans(),
        **dict.fromkeys(load.HOOK_KEYS, HOOKS | JSON),
        **dict.fromkeys(("parameters", "retry", "timeout_s", "fail_on"), JSON),
    },
)
BODIES = JSON | st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(load.BODY_KEYS, JSON), "steps": st.lists(STEPS, max_size=4) | JSON}
)


def refused_or_taken(body: Any) -> tuple[FieldError, ...] | None:
    try:
        assert pipeline.parse(body).steps
    except Refused as refused:
        return refused.errors
    return None


@settings(max_examples=60)
@given(BODIES)
def test_whatever_is_sent_is_a_pipeline_or_refused_in_printable_words(body: Any) -> None:
    errors = refused_or_taken(body)
    assert errors is None or errors
    assert all(str(error).encode("utf-8") for error in errors or ())


CHAINS = st.lists(
    st.fixed_dictionaries(
        {"step_name": st.sampled_from("abcd"), "step_type": st.just("NOOP")},
        optional={
            "next_step_name": st.sampled_from(["", "a", "b", "c", "d"]),
            "on-success": st.lists(st.sampled_from("abcd"), min_size=1, max_size=2),
            "on-error": st.sampled_from("abcd"),
        },
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda step: str(step["step_name"]),
)


@settings(max_examples=100)
@given(CHAINS)
def test_a_chain_that_is_taken_ends_and_leaves_no_step_out(steps: list[dict[str, Any]]) -> None:
    try:
        found = pipeline.parse(steps)
    except Refused:
        return
    assert {step.name for step in found.steps} == {step["step_name"] for step in steps}
    by_name = {step.name: step for step in found.steps}
    agenda, runs = [found.steps[0].name], 0
    while agenda:  # every step succeeds, nobody goes anywhere else: the manager's way
        agenda += by_name[agenda.pop(0)].flow.next
        runs += 1
        assert runs <= 1000


@pytest.mark.parametrize("data", [[{"id": 1}, {"id": 2}], "a text", 5, False])
def test_the_data_of_a_call_may_be_any_json(data: Any) -> None:
    parameters = {"method": "POST", "url": "https://shop.example/bulk", "headers": {}, "data": data}
    read = pipeline.parse(listed({"step_name": "s", "step_type": "API", "parameters": parameters}))
    assert read.steps[0].work.parameters["data"] == data


def test_data_that_is_no_object_takes_the_place_of_the_action_s() -> None:
    first, second = Work({"data": {"a": 1}, "query": {"x": 1}}), Work({"data": [1], "query": {"y": 2}})
    assert calls.merged(first, second).parameters == {"data": [1], "query": {"x": 1, "y": 2}}


def test_no_attempt_lasts_longer_than_its_step() -> None:
    (usual,) = pipeline.parse(listed(api())).steps
    (short,) = pipeline.parse(listed(api(total_timeout_s=20))).steps
    assert (usual.timeout_s, usual.flow.total_timeout_s) == (600, None)
    assert (short.timeout_s, short.flow.total_timeout_s) == (20, 20)
