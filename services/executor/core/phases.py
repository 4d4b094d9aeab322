"""What each phase of a visit does (core/visit.py names them), and what comes of the step's end."""

from collections.abc import Callable, Mapping
from datetime import timedelta

from msgspec.structs import replace

from services.contracts import events
from services.executor.core import approvals, ending
from services.executor.core.acting import acted
from services.executor.core.execution import Step
from services.executor.core.filling import Unaskable
from services.executor.core.leading import begun, hold, led, places, visit_of
from services.executor.core.story import Story
from services.executor.core.visit import Held, Phase, Visit


def come(story: Story, index: int) -> None:
    """A new visit: attempts go on, everything else begins anew."""
    step = story.execution.steps[index]
    flow, runs = led(step), story.execution.runs
    if runs >= flow.max_step_runs:
        message = f"{runs} steps have run, as many as the pipeline's limit (max_step_runs) allows"
        ending.failed(story, step.plan.name, "loop_limit", message)
        return
    ending.keep_within_budget(story, begins=True)
    if story.execution.status.terminal:
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
    flow = led(story.execution.steps[index])
    if not flow.pause_before:
        # Most steps have nothing before their work, and are as quick as that lets them be.
        plain = not flow.wait_before_s and not flow.actions
        story.visit(index, phase="ask" if plain else "delay")
        return True
    story.visit(index, phase="pause_before")
    _tell_waiting(story, index, "pause_before")
    return False


def _delay(story: Story, index: int) -> bool:
    wait_s = led(story.execution.steps[index]).wait_before_s
    if wait_s <= 0:
        story.visit(index, phase="enter", actions=places(story, index, "enter"))
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
    if not acted(story, index):
        return False
    visit = visit_of(story, index)
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
    except Unaskable as error:
        story.change(index, closed=story.execution.steps[index].asked)
        hold(story, index, Held(done=False, reason=error.reason, message=str(error)))
        return True
    return False


def _exit(story: Story, index: int) -> bool:
    if not acted(story, index):
        return False
    visit = visit_of(story, index)
    if visit.phase == "exit" and not visit.actions and visit.awaited is None:
        assert visit.held is not None, "the work has ended"
        occasion = "success" if visit.held.done else "error"
        story.visit(index, phase="result", actions=places(story, index, occasion))
    return True


def _result(story: Story, index: int) -> bool:
    if not acted(story, index):
        return False
    visit = visit_of(story, index)
    if visit.phase == "result" and not visit.actions and visit.awaited is None:
        _end(story, index)
    return True


def _end(story: Story, index: int) -> None:
    """Tell the step's end; a failure ends the execution unless a goto handles it."""
    step, visit = story.execution.steps[index], visit_of(story, index)
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


def _leave(story: Story, index: int) -> bool:
    """The step is done with: the next on the agenda, or the end."""
    visit = visit_of(story, index)
    story.visit(index, phase="over")
    agenda = (*story.execution.agenda[1:], *visit.then)
    story.state = replace(story.execution, agenda=agenda)
    if not agenda:
        ending.completed(story)
    return bool(agenda)


PHASES: Mapping[Phase, Callable[[Story, int], bool]] = {
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
