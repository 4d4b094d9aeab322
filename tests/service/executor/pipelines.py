"""Pipelines by hand: plans with flows, and a manager that is asked for them."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from msgspec.structs import replace

from services.contracts import events, flow, ids
from services.contracts.commands import ExecutionCommand, JobRequested, StepOutcome
from services.contracts.events import PlannedStep
from services.contracts.flow import Action, Flow
from tests.service.executor.house import Desk, command, job, outcome

VALUES = {"amount": 3}


def call(written: str = "Logger:start", on: flow.On = "enter", **more: Any) -> Action:
    """An action that calls a service; it says which one in its query."""
    parameters = {"method": "GET", "url": "https://logger.example/log", "query": {"called": written}}
    return Action(written=written, kind="call", on=on, parameters=more.pop("parameters", parameters), **more)


def goto(step: str, on: flow.On = "exit", when: str | None = None) -> Action:
    """`std:goto(step)`."""
    return Action(written=f"std:goto({step})", kind="goto", on=on, step=step, when=when)


def step(
    name: str,
    *actions: Action,
    kind: str = "NOOP",
    parameters: Any = None,
    timeout_s: int = 60,
    max_attempts: int = 3,
    **flow_fields: Any,
) -> PlannedStep:
    """One step with its flow."""
    return PlannedStep(
        name=name,
        kind=kind,
        parameters={} if parameters is None else parameters,
        timeout_s=timeout_s,
        max_attempts=max_attempts,
        flow=flow.packed(Flow(actions=actions, **flow_fields)),
    )


def chain(*steps: PlannedStep) -> tuple[PlannedStep, ...]:
    """The steps one after the other, each named by the one before."""
    led = (
        replace(planned, flow={**planned.flow, "next": [following.name]})
        for planned, following in pairwise(steps)
        if isinstance(planned.flow, dict)
    )
    return (*led, steps[-1])


def approval(name: str = "approve", *actions: Action, **parameters: Any) -> PlannedStep:
    """A step that waits for an approval."""
    more = {key: parameters.pop(key) for key in ("next", "max_step_runs") if key in parameters}
    return step(name, *actions, kind="WAIT_FOR_APPROVAL", parameters=parameters, **more)


def request(**changes: Any) -> JobRequested:
    """Somebody wants a pipeline run."""
    parameters = {"values": changes.pop("values", VALUES), "time_range": None}
    return job(**{"job_type": "pipeline", "parameters": parameters, **changes})


ID = request().execution_id


class Pipelines:
    """A job type `pipeline` whose plan is what the test says; `amount` of the values goes into each step."""

    def __init__(self) -> None:
        self.steps: tuple[PlannedStep, ...] = ()

    def __call__(self, wanted: JobRequested) -> tuple[PlannedStep, ...]:
        """The plan of a request."""
        return self.steps


class Runner:
    """A desk with one pipeline on it, and short words for what happens to it."""

    def __init__(self, desk: Desk, pipelines: Pipelines) -> None:
        self.desk = desk
        self._pipelines = pipelines

    def start(self, *steps: PlannedStep, **changes: Any) -> list[str]:
        """Hand in a request for these steps."""
        self._pipelines.steps = steps
        return self.desk.say(request(**changes))

    def plan(self, *steps: PlannedStep) -> None:
        """From now on, this is what the definition compiles to."""
        self._pipelines.steps = steps

    def asked(self) -> list[str]:
        """Names of the steps and actions that were asked for, in order."""
        return [order.step for order in self.desk.orders()]

    def order(self, name: str) -> Any:
        """The latest order for a step or action."""
        return [order for order in self.desk.orders() if order.step == name][-1]

    def end(self, name: str, how: str = "done", **changes: Any) -> list[str]:
        """The latest attempt of a step or action ends."""
        return self.desk.say(self.outcome(name, how, **changes))

    def outcome(self, name: str, how: str = "done", **changes: Any) -> StepOutcome:
        """How the latest attempt ends."""
        order = self.order(name)
        more: Mapping[str, Any] = {"reason": "r", "message": "m"} if how != "done" else {}
        taken = f"t-{order.attempt_id[:8]}"
        return outcome(order.attempt_id, request(), outcome=how, take_id=taken, **{**more, **changes})

    def tell(self, kind: str, by: str = "alice", key: str = "1", **changes: Any) -> list[str]:
        """Somebody gives a command."""
        return self.desk.say(self.command(kind, by, key, **changes))

    def command(self, kind: str, by: str = "alice", key: str = "1", **changes: Any) -> ExecutionCommand:
        """A command of somebody; another key is another command."""
        id = ids.command_id("acme", by, ID, kind, key)
        given = {"requested_at": self.desk.now, "role": "operator", **changes}
        return command(kind, request(), command_id=id, requested_by=by, **given)

    def refusal(self) -> tuple[str, str]:
        """Command and reason of the latest refusal."""
        refused = self.desk.history(ID)[-1]
        assert isinstance(refused, events.CommandRefused)
        return refused.command, refused.reason
