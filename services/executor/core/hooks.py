"""Actions beside a step (S2 2.7-2.13): asked for and answered as steps are, told as `hook.*`."""

from datetime import datetime

from msgspec.structs import replace

from services.contracts import events
from services.contracts.commands import Json
from services.contracts.events import PlannedStep
from services.contracts.flow import Action
from services.executor.core import filling
from services.executor.core.context import context
from services.executor.core.execution import Step
from services.executor.core.retry import UNCOUNTED
from services.executor.core.story import Story
from services.executor.core.visit import MESSAGE_CHARS_MAX, Hook
from services.language import expressions
from services.language.expressions import ExpressionError

KIND = "API"
OUT_MAX = 100
ENDED_KEPT = 20
"""Actions that have ended and are still known, so that a late word of their workers is none of a stranger."""


class Unmet(Exception):
    """An action could not begin: the reason is a stable word, the message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message[:MESSAGE_CHARS_MAX])
        self.reason = reason


def wanted(story: Story, index: int, action: Action) -> bool:
    """Whether the action's condition holds. Raises Unmet."""
    if action.when is None:
        return True
    try:
        value = expressions.parse(action.when).evaluate(context(story.execution, index))
        return expressions.holds(value)
    except ExpressionError as error:
        raise Unmet("bad_condition", f"{action.when}: {error}") from None


def ask(story: Story, index: int, number: int, action: Action) -> str:
    """Ask for a call of the step at `index`; `number` is its place in the flow. Its name. Raises Unmet."""
    step = story.execution.steps[index]
    visit = step.visit
    assert visit is not None, "a flow leads the step"
    if sum(hook.current or hook.retry_at is not None for hook in story.execution.hooks) >= OUT_MAX:
        raise Unmet("too_many_actions", f"{OUT_MAX} actions are out, and none has ended")
    try:
        parameters = filling.call(action.parameters, context(story.execution, index))
    except filling.Unaskable as error:
        raise Unmet(error.reason, str(error)) from None
    name = f"{step.plan.name}.{action.on}.{number}.{visit.number}"
    plan = PlannedStep(
        name=name,
        kind=KIND,
        parameters=parameters,
        timeout_s=action.timeout_s,
        max_attempts=action.max_attempts,
    )
    hook = Hook(
        step=step.plan.name, written=action.written, on=action.on, visit=visit.number, wait=action.wait
    )
    _forget_ended(story)
    story.state = replace(story.execution, hooks=(*story.execution.hooks, Step(plan=plan, hook=hook)))
    story.ask(len(story.execution.steps) + len(story.execution.hooks) - 1)
    return name


def own(story: Story, index: int, take_id: str, worker: str) -> None:
    """A worker's take owns the attempt now; the history does not care."""
    story.change(index, take_id=take_id, worker=worker, running_since=story.now)


def again(story: Story, index: int, reason: str, message: str, at: datetime) -> None:
    """The attempt ended badly; the next one is asked for at an instant."""
    step = story.execution.unit(index)
    assert step.hook is not None, "an action"
    story.change(
        index,
        closed=step.asked,
        counted=step.counted + (reason not in UNCOUNTED),
        take_id=None,
        running_since=None,
        lease_until=None,
        retry_at=at,
        hook=replace(step.hook, reason=reason, message=message),
    )


def completed(story: Story, index: int, output: Json) -> None:
    """The end of an action that went well. It publishes no file: it may outlive the execution."""
    step = story.execution.unit(index)
    hook = step.hook
    assert hook is not None, "an action"
    story.change(index, closed=step.asked, lease_until=None)
    if isinstance(output, dict) and output.get("body_file") is not None:
        output = {**output, "body_file": None}
    told(story, hook.step, hook.written, hook.on, step.asked, output)


def told(story: Story, step: str, written: str, on: str, attempt: int, output: Json) -> None:
    """The word on an action that went well."""
    story.tell(events.HookCompleted, step=step, hook=written, on=on, attempt=attempt, output=output)


def _forget_ended(story: Story) -> None:
    """Drop the oldest that have ended, beyond those kept, and of the others what nobody needs again."""
    hooks = story.execution.hooks
    ended = [hook.plan.name for hook in hooks if not hook.current and hook.retry_at is None]
    if not ended:
        return
    dropped = frozenset(ended[: -ENDED_KEPT or None])
    known = frozenset(ended)
    kept = (hook for hook in hooks if hook.plan.name not in dropped)
    stripped = (
        replace(hook, plan=replace(hook.plan, parameters=None)) if hook.plan.name in known else hook
        for hook in kept
    )
    story.state = replace(story.execution, hooks=tuple(stripped))
