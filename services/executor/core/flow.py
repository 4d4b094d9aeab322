"""How a pipeline goes on: one step at a time, each through its phases (core/visit.py), to the agenda's end.

`go_on` takes the step at the head of the agenda as far as it gets; whatever ends a wait (an outcome, a word
on an approval, an instant, a resume) changes the visit and calls it again. Nothing new begins while the
execution is paused, but what has ended is told.
"""

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from services.contracts import events
from services.contracts.commands import File, Json
from services.contracts.events import PlannedStep
from services.contracts.status import StepStatus
from services.executor.core import approvals, ending, hooks
from services.executor.core.acting import failed_beside
from services.executor.core.context import context
from services.executor.core.execution import Execution
from services.executor.core.leading import begun, hold, led, places
from services.executor.core.phases import PHASES, come
from services.executor.core.story import Story
from services.executor.core.visit import Held, Phase, Visit, Waiting
from services.language import expressions
from services.language.expressions import ExpressionError

# What a visit is in while it waits for somebody or an instant, as `execution.waiting` calls it.
_WAITS: Mapping[Phase, str] = {
    "approval": "approval",
    "pause_before": "pause_before",
    "wait_before": "wait_before",
    "wait_after": "wait_after",
}


def go_on(story: Story) -> None:
    """As far as it gets without waiting; then say what it waits for."""
    while _may_go_on(story):
        index = story.execution.index_of(story.execution.agenda[0])
        visit = story.execution.steps[index].visit
        if visit is None or visit.phase == "over":
            come(story, index)
        elif not PHASES[visit.phase](story, index):
            break
    settle(story)


def settle(story: Story) -> None:
    """Let the history say what the execution waits for, if that has changed."""
    state = story.execution
    if state.status.terminal:
        return
    wanted = _wait_of(state)
    if wanted == state.waiting:
        return
    if wanted is None:
        assert state.waiting is not None, "they differ"
        story.tell(events.ExecutionResumed, reason=state.waiting.reason)
        return
    if state.waiting is not None and state.waiting.reason != "paused":
        story.tell(events.ExecutionResumed, reason=state.waiting.reason)
    begun(story)
    index = state.index_of(wanted.step) if wanted.step is not None else None
    visit = state.steps[index].visit if index is not None else None
    until = visit.until if visit else None
    story.tell(events.ExecutionWaiting, reason=wanted.reason, step=wanted.step, until=until)


def take_over(story: Story, original: Execution | None) -> None:
    """Results of the original, along the way that it went, up to the first step that has none to take."""
    former = {step.plan.name: step for step in original.steps} if original else {}
    while story.execution.agenda:
        name, *rest = story.execution.agenda
        index, known = story.execution.index_of(name), former.pop(name, None)
        step = story.execution.steps[index]
        if known is None or known.status is not StepStatus.COMPLETED or not _alike(known.plan, step.plan):
            return
        if step.plan.kind == approvals.KIND and not approvals.may_stand(known, story.execution):
            return
        begun(story)
        story.tell(events.StepCompleted, step=name, attempt=0, output=known.output)
        for file in known.files:
            story.tell(events.FilePublished, step=name, file=file)
        then = known.visit.then if known.visit else ()
        kept = replace(known.visit or Visit(), first=1, phase="over", held=None)
        story.change(index, visit=kept)
        story.state = replace(story.execution, agenda=(*rest, *then))


def _alike(one: PlannedStep, other: PlannedStep) -> bool:
    """As JSON: what was stored has lists where a plan that was just made may have tuples."""
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")


def worked(story: Story, index: int, held: Held) -> None:
    """The work has ended, or an approval was decided: the exit actions come, then the step's end is told."""
    step = story.execution.steps[index]
    story.change(index, closed=step.asked, lease_until=None, retry_at=None)
    hold(story, index, held)
    go_on(story)


def fault_of(story: Story, index: int, output: Json, files: tuple[File, ...]) -> tuple[str, str] | None:
    """Why a result is none, by the step's `fail_on`: a reason and a message."""
    text = led(story.execution.steps[index]).fail_on
    if text is None:
        return None
    held = Held(done=True, output=output, files=files)
    try:
        value = expressions.parse(text).evaluate(context(story.execution, index, held))
        return ("fail_on", f"the result met fail_on: {text}") if expressions.holds(value) else None
    except ExpressionError as error:
        return "bad_condition", f"fail_on: {text}: {error}"


def hook_completed(story: Story, index: int, output: Json) -> None:
    """An action has ended well; the step may have waited for it."""
    name = story.execution.unit(index).plan.name
    hooks.completed(story, index, output)
    _awaited(story, name, None)


def hook_failed(story: Story, index: int, reason: str, message: str) -> None:
    """An action failed for good: an awaited one fails its step, and nobody cares for any other."""
    step = story.execution.unit(index)
    assert step.hook is not None, "an action"
    ending.hook_failed(story, index, reason, message)
    _awaited(story, step.plan.name, f"{step.hook.written} ({step.hook.on}): {reason}: {message}")


def resume(story: Story) -> None:
    """Somebody lets a step begin that was to pause before."""
    index = story.execution.index_of(story.execution.agenda[0])
    story.visit(index, phase="delay")
    go_on(story)


def due(story: Story) -> None:
    """The instant of the visit has come."""
    index = story.execution.index_of(story.execution.agenda[0])
    visit = story.execution.steps[index].visit
    assert visit is not None, "only a visit has an instant"
    match visit.phase:
        case "wait_before":
            story.visit(index, phase="enter", until=None, actions=places(story, index, "enter"))
        case "wait_after":
            story.visit(index, phase="leave", until=None)
        case _:
            action, held = approvals.expired(story, index)
            if action == "cancel":
                ending.cancel(story, ending.EXPIRED_BY, approvals.EXPIRED)
                return
            hold(story, index, held)
    go_on(story)


def _may_go_on(story: Story) -> bool:
    state = story.execution
    if state.status.terminal or not state.agenda:
        return False
    if not state.paused:
        return True
    visit = state.steps[state.index_of(state.agenda[0])].visit
    # What is left of a step that has ended is only to be told.
    return visit is not None and visit.phase in ("exit", "result") and not visit.actions and not visit.awaited


def _wait_of(state: Execution) -> Waiting | None:
    if state.paused:
        return Waiting(reason="paused")
    visit = state.steps[state.index_of(state.agenda[0])].visit if state.agenda else None
    reason = _WAITS.get(visit.phase) if visit else None
    return Waiting(reason=reason, step=state.agenda[0]) if reason else None


def _awaited(story: Story, name: str, fault: str | None) -> None:
    """The step at the head may have waited for this action; it goes on, or has failed."""
    state = story.execution
    if state.status.terminal or not state.agenda:
        return
    index = state.index_of(state.agenda[0])
    visit = state.steps[index].visit
    if visit is None or visit.awaited != name:
        return
    story.visit(index, awaited=None)
    if fault is not None:
        failed_beside(story, index, fault)
    go_on(story)
