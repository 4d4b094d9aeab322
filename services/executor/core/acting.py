"""Actions of a phase, one after the other: calls are asked for, gotos noted; the awaited hold the step up."""

from services.contracts import events
from services.contracts.flow import Action
from services.executor.core import hooks
from services.executor.core.leading import begun, hold, led, places, visit_of
from services.executor.core.story import Story
from services.executor.core.visit import Held


def acted(story: Story, index: int) -> bool:
    """Begin the next action of the phase, if there is one; False: an awaited one has to end first."""
    visit = visit_of(story, index)
    if visit.awaited is not None:
        return False
    if not visit.actions:
        return True
    number, *rest = visit.actions
    story.visit(index, actions=tuple(rest))
    action = led(story.execution.steps[index]).actions[number]
    try:
        if hooks.wanted(story, index, action):
            _act(story, index, number, action)
    except hooks.Unmet as unmet:
        _unmet(story, index, action, unmet.reason, str(unmet))
    return True


def _act(story: Story, index: int, number: int, action: Action) -> None:
    begun(story)
    step = story.execution.steps[index]
    match action.kind:
        case "call":
            name = hooks.ask(story, index, number, action)
            if action.wait:
                story.visit(index, awaited=name)
        case "goto":
            assert action.step is not None, "a goto names a step"
            story.visit(index, then=(*visit_of(story, index).then, action.step))
            hooks.told(story, step.plan.name, action.written, action.on, step.asked, {"step": action.step})
        case "noop":
            hooks.told(story, step.plan.name, action.written, action.on, step.asked, None)


def _unmet(story: Story, index: int, action: Action, reason: str, message: str) -> None:
    """An action could not begin: a cast call alone is forgotten."""
    step = story.execution.steps[index]
    story.tell(
        events.HookFailed,
        step=step.plan.name,
        hook=action.written,
        on=action.on,
        attempt=step.asked,
        reason=reason,
        message=message,
    )
    if action.wait or action.kind == "goto":
        failed_beside(story, index, f"{action.written} ({action.on}): {reason}: {message}")


def failed_beside(story: Story, index: int, message: str) -> None:
    """An awaited action failed. On enter the work does not begin; after a success it turns it into a failure.

    Ways chosen for the success are not gone; a failure before it stays the reason.
    """
    visit = visit_of(story, index)
    failure = Held(done=False, reason="hook_failed", message=message)
    match visit.phase:
        case "enter":
            hold(story, index, failure)
        case "exit" if visit.held is not None and visit.held.done:
            story.visit(index, held=failure, then=())
        case "result" if visit.held is not None and visit.held.done:
            story.visit(index, held=failure, then=(), actions=places(story, index, "error"))
        case _:
            pass
