"""What somebody wants of an execution. Every command is answered by an event that names it as its cause."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from services.contracts import events, public
from services.contracts.commands import ExecutionCommand, JobRequested
from services.executor.core import approvals, ending, flow, form
from services.executor.core import decide as deciding
from services.executor.core import request as requests
from services.executor.core.approvals import Refusal
from services.executor.core.execution import COMMANDS_MAX, Execution, Rerun
from services.executor.core.leading import begun
from services.executor.core.story import Story
from services.executor.core.visit import MESSAGE_CHARS_MAX, Held
from services.jobs.refused import Refused

DEFINITIONS_KEPT = 3


def decide(story: Story, wanted: ExecutionCommand) -> None:
    """What the command leads to; nothing if it has been answered before."""
    state = story.execution
    if wanted.command_id in state.commands:
        return
    story.cause = wanted.command_id
    # However many commands somebody sends, what runs can be stopped.
    stops = wanted.kind == "cancel" and not state.status.terminal
    try:
        if len(state.commands) >= COMMANDS_MAX and not stops:
            raise Refusal("too_many_commands", f"the execution has had {COMMANDS_MAX} commands")
        if wanted.kind not in _KINDS:
            raise Refusal("unknown_command", f"expected one of {', '.join(sorted(_KINDS))}")
        _KINDS[wanted.kind](story, wanted)
    except Refusal as refusal:
        refuse(story, wanted, refusal.reason, str(refusal))


def refuse(story: Story, wanted: ExecutionCommand, reason: str, message: str) -> None:
    """The answer to a command that changes nothing."""
    story.cause = wanted.command_id
    story.tell(
        events.CommandRefused,
        command=wanted.kind,
        requested_by=wanted.requested_by,
        reason=reason,
        message=message[:MESSAGE_CHARS_MAX],
    )


def rerun_request(state: Execution, rerun: Rerun) -> JobRequested:
    """The request of the execution that repeats this one; the same one however often it is made."""
    assert state.request is not None, "only what was accepted is run again"
    again = replace(
        state.request,
        execution_id=rerun.rerun_id,
        requested_at=rerun.at,
        created_by=rerun.requested_by,
        owner=rerun.owner,
        origin="manual",
        run_at=None,
        hold=False,
        rerun_of=state.execution_id,
        reuse_results=rerun.reuse_results,
    )
    if rerun.definition is None:
        return again
    # The former definition's limits and timeout do not bind what runs by another one.
    return requests.pinned(replace(again, timeout_s=None, limits=None), rerun.definition)


def _cancel(story: Story, wanted: ExecutionCommand) -> None:
    _check_not_ended(story.execution, "cancelled")
    ending.cancel(story, wanted.requested_by, wanted.reason)


def _rerun(story: Story, wanted: ExecutionCommand) -> None:
    state = story.execution
    if not state.status.terminal:
        message = f"the execution is {state.status}; only one that has ended can be run again"
        raise Refusal("not_ended", message)
    if state.request is None:
        raise Refusal("rejected", "the request was refused when it came; send a corrected one")
    assert wanted.rerun_id is not None, "checked where the record came in"
    rerun = Rerun(
        rerun_id=wanted.rerun_id,
        requested_by=wanted.requested_by,
        reuse_results=wanted.reuse_results,
        at=story.now,
        owner=wanted.owner,
        definition=wanted.definition,
    )
    story.tell(events.ExecutionRerun, rerun_id=rerun.rerun_id, requested_by=rerun.requested_by)
    story.begin_again(rerun, rerun_request(state, rerun))
    story.state = replace(story.execution, reruns=_kept(story.execution.reruns))


def _kept(reruns: tuple[Rerun, ...]) -> tuple[Rerun, ...]:
    """Without the older of those that brought a definition: a thousand of them would be a state of its own.

    They are kept for a log of requests that is lost; these were in it long ago.
    """
    brought = [rerun.rerun_id for rerun in reruns if rerun.definition is not None]
    dropped = frozenset(brought[:-DEFINITIONS_KEPT])
    return tuple(rerun for rerun in reruns if rerun.rerun_id not in dropped) if dropped else reruns


def _start(story: Story, wanted: ExecutionCommand) -> None:
    state = story.execution
    _check_not_ended(state, "started")
    if not state.held:
        raise Refusal("not_pending", "the execution was not held, or has been started")
    request = state.request
    story.tell(events.ExecutionStarted)
    if not state.steps:
        return  # it is being cancelled before it has a plan
    if request is not None and request.run_at is not None and request.run_at > story.now:
        story.change(0, retry_at=request.run_at)
    else:
        deciding.begin(story)


def _pause(story: Story, wanted: ExecutionCommand) -> None:
    state = story.execution
    _check_not_ended(state, "paused")
    if state.paused:
        raise Refusal("already_paused", "the execution is paused")
    if state.held:
        raise Refusal("not_started", "the execution waits for the command start; nothing of it runs")
    begun(story)
    story.tell(events.ExecutionWaiting, reason="paused", step=None, until=None)


def _resume(story: Story, wanted: ExecutionCommand) -> None:
    state = story.execution
    _check_not_ended(state, "resumed")
    if state.paused:
        story.tell(events.ExecutionResumed, reason="paused")
        deciding.go_on(story)
        return
    if state.waiting is None or state.waiting.reason != "pause_before":
        raise Refusal("not_paused", "the execution is not paused")
    story.tell(events.ExecutionResumed, reason="pause_before")
    flow.resume(story)


def _approve(story: Story, wanted: ExecutionCommand) -> None:
    _decided(story, approvals.approve(story, wanted))


def _reject(story: Story, wanted: ExecutionCommand) -> None:
    _decided(story, approvals.reject(story, wanted))


def _decided(story: Story, decision: tuple[int, Held] | None) -> None:
    if decision is not None:
        flow.worked(story, *decision)


def _amend(story: Story, wanted: ExecutionCommand) -> None:
    """Other values, as long as nothing was done with the old ones but to ask for an approval."""
    state = story.execution
    _check_not_ended(state, "amended")
    waiting = _waiting_approval(state)
    untouched = not any(step.asked or step.visit for step in state.steps)
    if state.request is None or (waiting is None and not untouched):
        raise Refusal("not_pending", "only before its first step, or while it waits for an approval")
    _check_no_consent(state)
    if state.request.job_type != form.KIND or not isinstance(wanted.values, dict):
        raise Refusal("bad_form", f"values: expected an object, for an execution of a {form.KIND}")
    amended = replace(state.request, parameters={**state.request.parameters, "values": wanted.values})
    try:
        plan = requests.plan(amended)
        amended = form.completed(amended)
    except Refused as refused:
        raise Refusal("bad_form", "; ".join(map(str, refused.errors))) from None
    if [step.name for step in plan] != [step.plan.name for step in state.steps]:
        raise Refusal("bad_form", "values: expected some that lead to the same steps")
    definition = amended.definition and amended.definition.body
    story.tell(
        events.ExecutionAmended,
        requested_by=wanted.requested_by,
        parameters=amended.parameters,
        plan=plan,
        secret_fields=tuple(sorted(public.declared(definition))),
    )
    if wanted.owner is not None:
        story.state = replace(story.execution, authors=(*story.execution.authors, wanted.owner))
    if waiting is not None:
        visit = state.steps[waiting].visit
        approvals.asked(story, waiting, visit.until if visit else None)


def _check_no_consent(state: Execution) -> None:
    """A consent that an earlier step has ended with cannot be made void any more. Raises Refusal."""
    for step in state.steps:
        if step.visit is not None and step.visit.decision == "approved":
            name = step.plan.name
            raise Refusal("already_decided", f"step {name} was approved with the values as they are")


def _waiting_approval(state: Execution) -> int | None:
    for index, step in enumerate(state.steps):
        if step.visit is not None and step.visit.phase == "approval":
            return index
    return None


def _check_not_ended(state: Execution, done: str) -> None:
    if state.status.terminal:
        message = f"the execution is {state.status}; only one that has not ended can be {done}"
        raise Refusal("already_ended", message)


_KINDS: Mapping[str, Callable[[Story, ExecutionCommand], None]] = {
    "amend": _amend,
    "approve": _approve,
    "cancel": _cancel,
    "pause": _pause,
    "reject": _reject,
    "remark": approvals.remark,
    "rerun": _rerun,
    "resume": _resume,
    "start": _start,
}
