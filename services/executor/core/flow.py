"""How a pipeline goes on: one step at a time, each through its phases (core/visit.py), to the agenda's end.

`go_on` takes the step at the head of the agenda as far as it gets; whatever ends a wait (an outcome, a word
on an approval, an instant, a resume) changes the visit and calls it again. Nothing new begins while the
execution is paused, but what has ended is told.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta

import msgspec
from msgspec.structs import replace

from services.contracts import events
from services.contracts.commands import File, Json
from services.contracts.events import PlannedStep
from services.contracts.flow import Action, Flow, flow_of
from services.contracts.status import Status, StepStatus
from services.executor.core import approvals, ending, hooks
from services.executor.core.context import context
from services.executor.core.execution import Execution, Step
from services.executor.core.story import Story
from services.executor.core.visit import Held, Phase, Visit, Waiting
from services.language import expressions
from services.language.expressions import ExpressionError
from services.language.placeholders import Unfilled

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
            _come(story, index)
        elif not _PHASES[visit.phase](story, index):
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


def begun(story: Story) -> None:
    """Something of it happens: it is pending no more."""
    if story.execution.status is Status.PENDING:
        story.tell(events.ExecutionStarted)


def led(step: Step) -> Flow:
    """The flow of a step that has one."""
    found = flow_of(step.plan.flow)
    assert found is not None, "a flow leads the step"
    return found


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
        kept = replace(known.visit or Visit(), number=0, first=1, phase="over", held=None)
        story.change(index, visit=kept)
        story.state = replace(story.execution, agenda=(*rest, *then))


def _alike(one: PlannedStep, other: PlannedStep) -> bool:
    """As JSON: what was stored has lists where a plan that was just made may have tuples."""
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")


def worked(story: Story, index: int, held: Held) -> None:
    """The work has ended, or an approval was decided: the exit actions come, then the step's end is told."""
    step = story.execution.steps[index]
    story.change(index, closed=step.asked, lease_until=None, retry_at=None)
    _hold(story, index, held)
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
            story.visit(index, phase="enter", until=None, actions=_places(story, index, "enter"))
        case "wait_after":
            story.visit(index, phase="leave", until=None)
        case _:
            action, held = approvals.expired(story, index)
            if action == "cancel":
                ending.cancel(story, ending.EXPIRED_BY, approvals.EXPIRED)
                return
            _hold(story, index, held)
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


def _come(story: Story, index: int) -> None:
    """A new visit: attempts go on, everything else begins anew."""
    step = story.execution.steps[index]
    flow, runs = led(step), story.execution.runs
    if runs >= flow.max_step_runs:
        message = f"{runs} steps have run, as many as the pipeline's limit (max_step_runs) allows"
        ending.failed(story, step.plan.name, "loop_limit", message)
        return
    visit = Visit(number=step.visit.number + 1 if step.visit else 1, first=step.asked + 1)
    again = Step(
        plan=step.plan,
        status=step.status,
        asked=step.asked,
        closed=step.asked,
        files=step.files,
        output=step.output,
        visit=visit,
    )
    story.state = story.execution.with_step(index, again)


def _new(story: Story, index: int) -> bool:
    if not led(story.execution.steps[index]).pause_before:
        story.visit(index, phase="delay")
        return True
    story.visit(index, phase="pause_before")
    _tell_waiting(story, index, "pause_before")
    return False


def _delay(story: Story, index: int) -> bool:
    wait_s = led(story.execution.steps[index]).wait_before_s
    if wait_s <= 0:
        story.visit(index, phase="enter", actions=_places(story, index, "enter"))
        return True
    story.visit(index, phase="wait_before", until=story.now + timedelta(seconds=wait_s))
    _tell_waiting(story, index, "wait_before")
    return False


def _tell_waiting(story: Story, index: int, reason: str) -> None:
    begun(story)
    step = story.execution.steps[index]
    story.tell(
        events.StepWaiting,
        step=step.plan.name,
        attempt=step.asked + 1,
        reason=reason,
        until=step.visit.until if step.visit else None,
        content_hash=None,
        detail=None,
    )


def _waits(story: Story, index: int) -> bool:
    return False


def _enter(story: Story, index: int) -> bool:
    if not _acted(story, index):
        return False
    visit = _visit(story, index)
    if visit.phase == "enter" and not visit.actions and visit.awaited is None:
        story.visit(index, phase="ask")
    return True


def _ask(story: Story, index: int) -> bool:
    step = story.execution.steps[index]
    if step.plan.kind == approvals.KIND:
        begun(story)
        story.visit(index, phase="approval")
        approvals.opened(story, index)
        return False
    story.visit(index, phase="work")
    try:
        story.ask(index)
    except Unfilled as error:
        story.change(index, closed=story.execution.steps[index].asked)
        _hold(story, index, Held(done=False, reason="unresolved_placeholder", message=str(error)))
        return True
    return False


def _exit(story: Story, index: int) -> bool:
    if not _acted(story, index):
        return False
    visit = _visit(story, index)
    if visit.phase == "exit" and not visit.actions and visit.awaited is None:
        assert visit.held is not None, "the work has ended"
        occasion = "success" if visit.held.done else "error"
        story.visit(index, phase="result", actions=_places(story, index, occasion))
    return True


def _result(story: Story, index: int) -> bool:
    if not _acted(story, index):
        return False
    visit = _visit(story, index)
    if visit.phase == "result" and not visit.actions and visit.awaited is None:
        _end(story, index)
    return True


def _leave(story: Story, index: int) -> bool:
    """The step is done with: the next on the agenda, or the end."""
    visit = _visit(story, index)
    story.visit(index, phase="over")
    agenda = (*story.execution.agenda[1:], *visit.then)
    story.state = replace(story.execution, agenda=agenda)
    if not agenda:
        ending.completed(story)
    return bool(agenda)


_PHASES: Mapping[Phase, Callable[[Story, int], bool]] = {
    "new": _new,
    "pause_before": _waits,
    "delay": _delay,
    "wait_before": _waits,
    "enter": _enter,
    "ask": _ask,
    "work": _waits,
    "approval": _waits,
    "exit": _exit,
    "result": _result,
    "wait_after": _waits,
    "leave": _leave,
}
"""What each phase does; whether the visit goes on at once."""


def _acted(story: Story, index: int) -> bool:
    """Begin the next action of the phase, if there is one; False: an awaited one has to end first."""
    visit = _visit(story, index)
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
            story.visit(index, then=(*_visit(story, index).then, action.step))
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
        _failed_beside(story, index, f"{action.written} ({action.on}): {reason}: {message}")


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
        _failed_beside(story, index, fault)
    go_on(story)


def _failed_beside(story: Story, index: int, message: str) -> None:
    """An awaited action failed. On enter the work does not begin; after a success it turns it into a failure.

    Ways chosen for the success are not gone; a failure before it stays the reason.
    """
    visit = _visit(story, index)
    failure = Held(done=False, reason="hook_failed", message=message)
    match visit.phase:
        case "enter":
            _hold(story, index, failure)
        case "exit" if visit.held is not None and visit.held.done:
            story.visit(index, held=failure, then=())
        case "result" if visit.held is not None and visit.held.done:
            story.visit(index, held=failure, then=(), actions=_places(story, index, "error"))
        case _:
            pass


def _hold(story: Story, index: int, held: Held) -> None:
    """Keep the outcome until the exit actions have ended."""
    places = _places(story, index, "exit")
    story.visit(index, phase="exit", held=held, until=None, actions=places, awaited=None, then=())


def _end(story: Story, index: int) -> None:
    """Tell the step's end; a failure ends the execution unless a goto handles it."""
    step, visit = story.execution.steps[index], _visit(story, index)
    held, flow, name = visit.held, led(story.execution.steps[index]), step.plan.name
    assert held is not None, "the work has ended"
    attempt = max(step.asked, visit.first)
    if held.skipped:
        story.tell(events.StepSkipped, step=name, attempt=attempt, reason=held.reason)
    elif held.done:
        story.tell(events.StepCompleted, step=name, attempt=attempt, output=held.output)
        for file in held.files:
            story.tell(events.FilePublished, step=name, file=file)
    else:
        story.tell(events.StepFailed, step=name, attempt=attempt, reason=held.reason, message=held.message)
    then = visit.then or (flow.next if held.done else ())
    story.visit(index, phase="leave", held=None, then=then)
    if not held.done and not then:
        ending.failed(story, name, held.reason, held.message)
    elif flow.wait_after_s > 0:
        until = story.now + timedelta(seconds=flow.wait_after_s)
        story.visit(index, phase="wait_after", until=until)


def _places(story: Story, index: int, on: str) -> tuple[int, ...]:
    found = led(story.execution.steps[index]).actions
    return tuple(place for place, action in enumerate(found) if action.on == on)


def _visit(story: Story, index: int) -> Visit:
    visit = story.execution.steps[index].visit
    assert visit is not None, "a flow leads the step"
    return visit
