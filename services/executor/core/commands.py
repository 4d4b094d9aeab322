"""What somebody wants of an execution. Every command is answered by an event that names it as its cause."""

from msgspec.structs import replace

from services.contracts import events
from services.contracts.commands import ExecutionCommand, JobRequested
from services.executor.core.execution import COMMANDS_MAX, Execution, Rerun
from services.executor.core.story import Story


def decide(story: Story, wanted: ExecutionCommand) -> None:
    """What the command leads to; nothing if it has been answered before."""
    state = story.execution
    if wanted.command_id in state.commands:
        return
    story.cause = wanted.command_id
    if len(state.commands) >= COMMANDS_MAX:
        _refuse(story, wanted, "too_many_commands", f"the execution has had {COMMANDS_MAX} commands")
    elif wanted.kind == "cancel":
        _cancel(story, wanted)
    elif wanted.kind == "rerun":
        _rerun(story, wanted)
    else:
        _refuse(story, wanted, "unknown_command", "expected cancel or rerun")


def rerun_request(state: Execution, rerun: Rerun) -> JobRequested:
    """The request of the execution that repeats this one; the same one however often it is made."""
    assert state.request is not None, "only what was accepted is run again"
    return replace(
        state.request,
        execution_id=rerun.rerun_id,
        requested_at=rerun.at,
        created_by=rerun.requested_by,
        origin="manual",
        run_at=None,
        rerun_of=state.execution_id,
        reuse_results=rerun.reuse_results,
    )


def _cancel(story: Story, wanted: ExecutionCommand) -> None:
    state = story.execution
    if state.status.terminal:
        message = f"the execution is {state.status}; only one that has not ended can be cancelled"
        _refuse(story, wanted, "already_ended", message)
        return
    open_steps = [step for step in state.steps if not step.status.terminal]
    for step in open_steps:
        story.tell(events.StepCancelled, step=step.plan.name, attempt=step.asked, reason="cancelled")
    story.tell(events.ExecutionCancelled, requested_by=wanted.requested_by, reason=wanted.reason)
    if any(step.asked for step in open_steps):
        story.revoke("cancelled")


def _rerun(story: Story, wanted: ExecutionCommand) -> None:
    state = story.execution
    if not state.status.terminal:
        message = f"the execution is {state.status}; only one that has ended can be run again"
        _refuse(story, wanted, "not_ended", message)
    elif state.request is None:
        _refuse(story, wanted, "rejected", "the request was refused when it came; send a corrected one")
    else:
        assert wanted.rerun_id is not None, "checked where the record came in"
        rerun = Rerun(
            rerun_id=wanted.rerun_id,
            requested_by=wanted.requested_by,
            reuse_results=wanted.reuse_results,
            at=story.now,
        )
        story.tell(events.ExecutionRerun, rerun_id=rerun.rerun_id, requested_by=rerun.requested_by)
        story.begin_again(rerun, rerun_request(state, rerun))


def _refuse(story: Story, wanted: ExecutionCommand, reason: str, message: str) -> None:
    story.tell(
        events.CommandRefused,
        command=wanted.kind,
        requested_by=wanted.requested_by,
        reason=reason,
        message=message,
    )
