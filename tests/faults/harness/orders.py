"""The pipeline of ten steps that the fault run disturbs, and how each of its executions must end.

Steps of every kind but EXPORT, actions cast and awaited, a retry, a handled error, a wait, an approval.
What becomes of a request follows from its number alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.contracts import ids
from tests.faults.harness import shop

PIPELINE = "orders"
ASK = "ask"
APPROVERS = ("bob",)
FAR_MORE_THAN_KILLS = 50
"""Attempts of what must not fail because its worker was killed once more than usual."""

STEPS = ("open", "fetch", "judge", "reserve", ASK, "pay", "rest", "sum", "ship", "close")


def is_rejected(number: int) -> bool:
    """The approver says no."""
    return number % 10 == 3


def definition(url: str) -> dict[str, Any]:
    """What is put."""
    actions = {
        name: {"parameters": {"url": f"/log/{name}", "method": "GET", "query": {"n": {"$.n": None}}}}
        for name in ("enter", "exit", "failed", "done")
    }
    more: dict[str, dict[str, Any]] = {
        "open": {"step_type": "NOOP", "on-enter": "Log:enter"},
        "fetch": _call(url, "fetch"),
        "judge": {
            "step_type": "TRANSFORM",
            "parameters": {"output": {"twice": "$.steps.fetch.result.body.twice", "large": "$($.n > 250)"}},
        },
        "reserve": {
            **_call(url, "reserve"),
            "on-exit": {"action": "Log:exit", "wait": True, "max_attempts": 20},
        },
        ASK: {"step_type": "WAIT_FOR_APPROVAL", "parameters": {"approvers": [*APPROVERS]}},
        "pay": _call(url, "pay", timeout_s=shop.RELEASED_WITHIN_S),
        "rest": {"step_type": "NOOP", "wait_before_s": 1},
        "sum": {
            "step_type": "TRANSFORM",
            "parameters": {
                "output": {"twice": "${steps.judge.result.twice}", "by": "$.steps.ask.result.approved_by"}
            },
        },
        "ship": {**_call(url, "ship"), "on-error": ["Log:failed", "std:goto(close)"]},
        "close": {**_call(url, "close"), "on-success": "Log:done"},
    }
    steps = []
    for index, name in enumerate(STEPS):
        last = index == len(STEPS) - 1
        following = "" if last else STEPS[index + 1]
        steps.append({"step_name": name, "next_step_name": following, "is_terminal_step": last, **more[name]})
    return {
        "form": [{"name": "n", "type": "integer"}],
        "services": {"Log": {"type": "HTTP", "parameters": {"baseUrl": url, "actions": actions}}},
        "steps": steps,
    }


def _call(url: str, name: str, **more: Any) -> dict[str, Any]:
    parameters = {
        "method": "POST",
        "url": f"{url}/{name}?n=${{n}}",
        "headers": {},
        "data": {"n": "${n}"},
        **more,
    }
    return {"step_type": "API", "parameters": parameters, "retry": {"max_attempts": FAR_MORE_THAN_KILLS}}


@dataclass(frozen=True, slots=True)
class Expected:
    """What an execution must come to. `calls` must be heard; `cast` may be lost with a worker."""

    end: str
    completed: Mapping[str, Any]
    failed: Mapping[str, str]
    calls: frozenset[str]
    cast: frozenset[str]


def expected(number: int) -> Expected:
    """By the number alone; a step's output is None where it is no TRANSFORM."""
    twice = {"twice": 2 * number}
    known: dict[str, Any] = dict.fromkeys(STEPS)
    known["judge"] = {**twice, "large": number > 250}
    known["sum"] = {**twice, "by": [*APPROVERS]}
    before = {"fetch", "reserve", "reserve.exit.0.1"}
    if is_rejected(number):
        done = {name: known[name] for name in STEPS[:4]}
        failed = {ASK: "approval_rejected"}
        return Expected("execution.failed", done, failed, frozenset(before), frozenset({"open.enter.0.1"}))
    if shop.is_stuck(number):
        done = {name: known[name] for name in STEPS[:5]}
        return Expected(
            "execution.cancelled", done, {}, frozenset({*before, "pay"}), frozenset({"open.enter.0.1"})
        )
    calls, cast = {*before, "pay", "ship", "close"}, {"open.enter.0.1", "close.success.0.1"}
    if not shop.is_out(number):
        return Expected("execution.completed", known, {}, frozenset(calls), frozenset(cast))
    done = {name: known[name] for name in STEPS if name != "ship"}
    cast.add("ship.error.0.1")
    return Expected("execution.completed", done, {"ship": "http_400"}, frozenset(calls), frozenset(cast))


def key(execution_id: str, name: str) -> str:
    """The idempotency key of a call: no step of this pipeline is visited twice."""
    return ids.step_key(execution_id, name, 1)
