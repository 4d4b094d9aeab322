"""How an execution ends before its steps do, and what becomes of what is still out."""

from services.contracts import events
from services.executor.core import budget
from services.executor.core.execution import Step
from services.executor.core.story import Story

EXPIRED_BY = "system"
"""Who cancels an execution whose approval expired."""


def cancel(story: Story, requested_by: str, reason: str | None) -> None:
    """Nothing of it runs or will run."""
    state = story.execution
    open_steps = [step for step in state.steps if not step.ended]
    for step in open_steps:
        story.tell(events.StepCancelled, step=step.plan.name, attempt=_attempt(step), reason="cancelled")
    stopped = _stop_hooks(story, "cancelled", "the execution was cancelled")
    story.tell(events.ExecutionCancelled, requested_by=requested_by, reason=reason)
    if stopped or any(step.asked for step in open_steps):
        story.revoke("cancelled")


def time_out(story: Story) -> None:
    """The execution's own timeout: what runs of it is stopped."""
    request = story.execution.request
    assert request is not None, "only what was accepted has a timeout"
    message = f"the execution ran longer than its timeout (timeout_s) of {request.timeout_s} s"
    _stop(story, "execution_timeout", message)
    story.revoke("timeout")


def keep_within_budget(story: Story, *, begins: bool = False) -> None:
    """End an execution that has led to more than it may. `begins`: another step is about to."""
    state = story.execution
    if state.status.terminal:
        return
    message = budget.exceeded(story.budget, state, story.size() if begins else 0)
    message = message or (budget.runs_exceeded(story.budget, state) if begins else None)
    if message is not None:
        out = any(step.current for step in state.steps)
        if _stop(story, budget.REASON, message) or out:
            story.revoke("ended")


def _stop(story: Story, reason: str, message: str) -> bool:
    """Fail, with the steps that have begun and their actions; whether actions were out."""
    begun = [step for step in story.execution.steps if not step.ended and (step.asked or step.visit)]
    for step in begun:
        story.tell(events.StepCancelled, step=step.plan.name, attempt=_attempt(step), reason=reason)
    stopped = _stop_hooks(story, reason, message)
    story.tell(events.ExecutionFailed, reason=reason, message=message, step=None, dead_letter=None)
    return stopped


def poisoned(story: Story, reason: str, message: str, dead_letter: str) -> None:
    """An input that can never be processed ends what waits for it."""
    state = story.execution
    out = any(step.current for step in state.steps)
    if _stop_hooks(story, "ended", "the execution ended") or out:
        story.revoke("ended")
    story.tell(events.ExecutionFailed, reason=reason, message=message, step=None, dead_letter=dead_letter)


def failed(story: Story, step: str | None, reason: str, message: str) -> None:
    """A step failed and nothing handles it."""
    story.tell(events.ExecutionFailed, reason=reason, message=message, step=step, dead_letter=None)
    give_up_retries(story)


def completed(story: Story) -> None:
    """Every step has ended; the counts are over all files."""
    published = [file for step in story.execution.steps for file in step.files]
    story.tell(
        events.ExecutionCompleted,
        files=len(published),
        rows=sum(file.rows for file in published),
        bytes=sum(file.bytes for file in published),
    )
    give_up_retries(story)


def give_up_retries(story: Story) -> None:
    """After the last word nothing is asked for: actions that waited for another attempt have failed."""
    count = len(story.execution.steps)
    for place, step in enumerate(story.execution.hooks):
        if step.hook is not None and step.retry_at is not None:
            hook_failed(story, count + place, step.hook.reason, step.hook.message)


def hook_failed(story: Story, index: int, reason: str, message: str) -> None:
    """The end of an action that will not be tried again."""
    step = story.execution.unit(index)
    hook = step.hook
    assert hook is not None, "an action"
    story.change(index, closed=step.asked, lease_until=None, retry_at=None)
    story.tell(
        events.HookFailed,
        step=hook.step,
        hook=hook.written,
        on=hook.on,
        attempt=step.asked,
        reason=reason,
        message=message,
    )


def _attempt(step: Step) -> int:
    """The attempt that a step has come to, asked for or not."""
    return max(step.asked, step.visit.first) if step.visit else step.asked


def _stop_hooks(story: Story, reason: str, message: str) -> bool:
    """Actions that are out, or wait for another attempt, end with the execution; whether there were any."""
    count = len(story.execution.steps)
    out = [
        count + place
        for place, step in enumerate(story.execution.hooks)
        if step.current or step.retry_at is not None
    ]
    for index in out:
        hook_failed(story, index, reason, message)
    return bool(out)
