"""The order of a list: top to bottom wherever no step says otherwise."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs import pipeline
from services.jobs.refused import Refused
from tests.pipelining import linked, logger, noop

NAMES = tuple("abcdef")
CONDITION = "$.execution.error = null"
SAYS_NOTHING = st.one_of(
    st.sampled_from(["Logger:start", "std:no-op", {"std:no-op": CONDITION}]).flatmap(
        lambda action: st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("on-enter", "on-exit", "on-success", "on-error"), st.just(action))
        )
    ),
    st.sampled_from(NAMES).map(lambda name: {"on-error": f"std:goto({name})"}),
    st.sampled_from(NAMES).map(lambda name: {"on-error": [name, "Logger:start"]}),
    st.sampled_from(NAMES).map(lambda name: {"on-exit": {f"std:goto({name})": CONDITION}}),
    st.sampled_from(NAMES).map(lambda name: {"on-success": {name: CONDITION}}),
)


def run_by(*steps: Any, **more: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Each step with what follows it, in the order of the plan."""
    found = pipeline.parse({"steps": [*steps], "services": logger(), **more})
    return [(step.name, step.flow.next) for step in found.steps]


def in_a_row(*names: str) -> list[tuple[str, tuple[str, ...]]]:
    return [*zip(names, [*((name,) for name in names[1:]), ()], strict=True)]


def test_a_way_back_on_error_leaves_the_order_as_it_is() -> None:
    mail = noop("Mail", **{"on-error": [{"std:goto(Export)": "$.execution.error.reason = 'timeout'"}]})
    assert run_by(noop("Export"), mail) == in_a_row("Export", "Mail")


def test_a_hook_that_goes_nowhere_leaves_the_order_as_it_is() -> None:
    assert run_by(noop("a", **{"on-exit": "std:no-op"}), noop("b"), noop("c")) == in_a_row("a", "b", "c")


@pytest.mark.parametrize("on", ["enter", "exit", "success", "error"])
def test_a_hook_added_by_api_to_a_plain_list_changes_no_order(on: str) -> None:
    body = {"steps": [noop("a"), noop("b"), noop("c")], "services": logger()}
    changed = pipeline.with_hook(body, "b", on, {"action": "Logger:start"})
    assert run_by(*changed["steps"]) == in_a_row("a", "b", "c")


def test_a_step_that_a_hook_calls_keeps_its_place() -> None:
    call = {"step_name": "log", "action": "Logger:start"}
    assert run_by(call, noop("a", **{"on-enter": "log"}), noop("b")) == in_a_row("log", "a", "b")


@given(st.lists(SAYS_NOTHING, min_size=len(NAMES), max_size=len(NAMES)))
def test_order_holds_whatever_hooks_there_are_that_depend_or_go_nowhere(hooks: list[Any]) -> None:
    found = pipeline.parse(
        {
            "steps": [noop(name, **more) for name, more in zip(NAMES, hooks, strict=True)],
            "services": logger(),
        }
    )
    assert found.steps[0].name == NAMES[0]
    assert {step.name: step.flow.next for step in found.steps} == dict(in_a_row(*NAMES))


@given(st.integers(0, 4), st.sampled_from(["std:goto({})", "{}"]), st.sampled_from(["on-exit", "on-success"]))
def test_a_step_that_always_goes_elsewhere_says_so_for_itself_alone(at: int, way: str, key: str) -> None:
    """It skips nothing: every other step still leads to the one below it."""
    steps = [noop(name) for name in NAMES]
    steps[at] = noop(NAMES[at], **{key: way.format(NAMES[at + 1])})
    found = {step.name: step.flow for step in pipeline.parse(steps).steps}
    others = {name: following for name, following in in_a_row(*NAMES) if name != NAMES[at]}
    assert {name: found[name].next for name in others} == others
    gone = [action.step for action in found[NAMES[at]].actions if action.kind == "goto"]
    assert [*found[NAMES[at]].next, *gone] == [NAMES[at + 1]]


def test_a_step_that_mends_leads_back_into_the_order() -> None:
    steps = [noop("a", **{"on-success": "c", "on-error": "b"}), noop("b"), noop("c")]
    assert dict(run_by(*steps)) == {"a": ("c",), "b": ("c",), "c": ()}


def test_what_a_step_says_of_its_own_place_holds() -> None:
    last = noop("b", is_terminal_step=True)
    on_error = {"on-error": "mend"}
    ends = [("a", ("b",)), ("b", ()), ("mend", ())]
    assert sorted(run_by(noop("a", **on_error), last, noop("mend"))) == ends
    assert sorted(run_by(noop("a", **on_error), noop("b", next_step_name=""), noop("mend"))) == ends
    mend = noop("mend", prev_step_name="a")
    assert sorted(run_by(noop("a", **on_error), noop("b"), mend)) == ends


def test_a_link_of_s3_speaks_for_both_its_ends() -> None:
    steps = [noop("a", next_step_name="c"), noop("b"), noop("c", next_step_name="b")]
    assert run_by(*steps) == [("a", ("c",)), ("c", ("b",)), ("b", ())]
    assert run_by(noop("c"), noop("a", next_step_name="b"), noop("b", next_step_name="c")) == in_a_row(*"abc")


def test_steps_that_follow_together_run_as_they_are_named() -> None:
    steps = [noop("a", **{"on-success": ["c", "b"]}), noop("b"), noop("c")]
    assert sorted(run_by(*steps)) == [("a", ("c", "b")), ("b", ()), ("c", ())]


def test_a_step_that_everything_goes_past_is_named() -> None:
    with pytest.raises(Refused) as caught:
        pipeline.parse([noop("a", **{"on-success": "c"}), noop("b"), noop("c")])
    assert [str(error) for error in caught.value.errors] == [
        '[1]: step "b" is unreachable: no step leads to it'
    ]


@given(st.permutations(linked(*NAMES)))
def test_a_chain_that_says_everything_is_the_same_in_any_order_of_the_list(steps: list[Any]) -> None:
    assert run_by(*steps) == in_a_row(*NAMES)


def test_tasks_have_no_order() -> None:
    with pytest.raises(Refused, match="unreachable"):
        pipeline.parse({"Workbook": {"tasks": {name: {"action": "std:no-op"} for name in "ab"}}})
