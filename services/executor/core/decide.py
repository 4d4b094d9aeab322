"""Every rule about executions: what a request, a report, an outcome or a timer leads to."""

from datetime import datetime, timedelta

from services.contracts import events, ids
from services.contracts.commands import File, JobRequested, StepOutcome, StepReport
from services.contracts.errors import FieldError
from services.contracts.events import PlannedStep
from services.contracts.status import Status, StepStatus
from services.executor.core.execution import Execution, Step
from services.executor.core.retry import LONGEST_S, LONGEST_UNCOUNTED_S, UNCOUNTED, retry_at
from services.executor.core.story import Story

LEASE = timedelta(seconds=20)
QUEUE_TIMEOUT = timedelta(hours=24)
WORKER_FIRST = timedelta(seconds=30)
WORKER_LOST = "worker_lost"

# A slot's execution has no pending phase: when it fires, it runs (S0 0.5).
_NO_PENDING_PHASE = frozenset({"scheduled", "backfill"})


def accept(
    request: JobRequested,
    request_hash: str,
    plan: tuple[PlannedStep, ...],
    now: datetime,
    original: Execution | None = None,
) -> Story:
    """A request that passed its checks: accepted, and its first step asked for, now or at `run_at`.

    Results of `original` stand for steps that are planned alike. No plan: it is cancelled before it has one.
    """
    story = Story(request.execution_id, request.tenant, request.execution_id, now)
    story.tell(events.ExecutionAccepted, request=request, request_hash=request_hash, plan=plan)
    if plan and story.execution.steps[0].retry_at is None:
        _proceed(story, _taken_over(story, original))
    return story


def reject(request: JobRequested, request_hash: str, errors: tuple[FieldError, ...], now: datetime) -> Story:
    """A request that cannot run: one terminal event with every error."""
    story = Story(request.execution_id, request.tenant, request.execution_id, now)
    story.tell(events.ExecutionRejected, request_hash=request_hash, errors=errors)
    return story


def report(state: Execution, said: StepReport, now: datetime) -> Story | None:
    """A claim, heartbeat or part. None: it comes from a take that does not own a current attempt.

    The first word of any take makes it the owner: a claim may have been lost with its log.
    """
    index = state.current_step(said.attempt_id)
    if index is None:
        return None
    story = Story.on(state, said.take_id, now)
    if state.steps[index].take_id is None:
        _own(story, index, said.take_id, said.worker)
    if story.execution.steps[index].take_id != said.take_id:
        return None
    story.lease(index, now + timedelta(seconds=min(said.lease_s, LEASE.total_seconds())))
    step = story.execution.steps[index]
    if said.kind == "part" and (said.files, said.rows) > step.progress:
        story.tell(
            events.StepProgressed,
            step=step.plan.name,
            attempt=step.asked,
            files=said.files,
            rows=said.rows,
            bytes=said.bytes,
            detail=said.detail,
        )
    return story


def outcome(state: Execution, said: StepOutcome, now: datetime) -> Story | None:
    """How a take ended. None: the attempt is not current, or another take owns it."""
    index = state.current_step(said.attempt_id)
    if index is None or state.steps[index].take_id not in (None, said.take_id):
        return None
    story = Story.on(state, said.take_id, now)
    if state.steps[index].take_id is None:
        _own(story, index, said.take_id, said.worker)
    step = story.execution.steps[index]
    reason, message = said.reason or said.outcome, said.message or "the worker gave no message"
    match said.outcome:
        case "done":
            _complete(story, index, said.output, said.files)
        case "retry" if reason in UNCOUNTED:
            _wait_for_what_is_away(story, step, reason, message)
        case "retry" if step.counted + 1 < step.plan.max_attempts:
            at = retry_at(said.attempt_id, step.counted + 1, LONGEST_S, now)
            _schedule_retry(story, step, reason, message, at)
        case _:
            _fail(story, step, reason, message)
    return story


def disown(state: Execution, index: int, said: StepReport, now: datetime) -> Story:
    """The answer to a word of a take that does not own a current attempt of this step: stop.

    Whoever ended the step itself has stopped; what it said before only comes late.
    """
    story, step = Story.on(state, said.take_id, now), state.steps[index]
    if step.take_id == said.take_id and step.status is not StepStatus.CANCELLED:
        return story
    current = state.current_step(said.attempt_id) is not None
    reason = "cancelled" if state.status is Status.CANCELLED else "not_owner" if current else "ended"
    story.revoke(reason, said.attempt_id, said.take_id)
    return story


def due(state: Execution, now: datetime, caught_up_at: datetime) -> Story:
    """The execution's timer: leases that ran out, retries whose time has come.

    A lease gets a full term from `caught_up_at` on: silence that we slept through is no silence.
    """
    story = Story.on(state, f"timer-{state.execution_id[:16]}-{state.sequence}", now)
    for index, step in enumerate(state.steps):
        if step.retry_at is not None and step.retry_at <= now:
            _begin(story, index)
        elif (timeout_at := _timeout_at(step)) is not None and timeout_at <= now:
            _time_out(story, index)
            break
        elif step.lease_until is not None and step.lease_until <= now:
            if caught_up_at + LEASE > now:
                story.lease(index, caught_up_at + LEASE)
            else:
                _lost(story, index)
    return story


def fail(state: Execution, reason: str, message: str, dead_letter: str, now: datetime) -> Story | None:
    """An input that can never be processed ends what waits for it. None: it had ended already."""
    if state.status.terminal:
        return None
    story = Story.on(state, dead_letter, now)
    if any(step.current for step in state.steps):
        story.revoke("ended")
    story.tell(events.ExecutionFailed, reason=reason, message=message, step=None, dead_letter=dead_letter)
    return story


def next_instant(state: Execution) -> datetime | None:
    """When the execution's timer is due."""
    if state.status.terminal:
        return None
    instants = [at for step in state.steps for at in _instants(step) if at is not None]
    return min(instants, default=None)


def _instants(step: Step) -> tuple[datetime | None, ...]:
    return step.retry_at, step.lease_until, _timeout_at(step)


def _timeout_at(step: Step) -> datetime | None:
    """Nothing waits for ever: neither for a worker, nor for a worker that only says it is alive."""
    if not step.current:
        return None
    if step.running_since is not None:
        # The worker, which stops the work, has the first word.
        return step.running_since + timedelta(seconds=step.plan.timeout_s) + WORKER_FIRST
    return step.asked_at + QUEUE_TIMEOUT if step.asked_at is not None else None


def _time_out(story: Story, index: int) -> None:
    step = story.execution.steps[index]
    story.revoke("timeout", story.execution.attempt_id(index))
    if step.running_since is not None:
        message = f"the step ran longer than its timeout of {step.plan.timeout_s} s"
        _fail(story, step, "timeout", message)
    else:
        message = f"no worker took the step within {QUEUE_TIMEOUT.total_seconds() / 3600:.0f} h"
        _fail(story, step, "queue_timeout", message)


def _own(story: Story, index: int, take_id: str, worker: str) -> None:
    step = story.execution.steps[index]
    if story.execution.status is Status.PENDING:
        story.tell(events.ExecutionStarted)
    story.tell(events.StepRunning, step=step.plan.name, attempt=step.asked, take_id=take_id, worker=worker)


def _complete(story: Story, index: int, output: object, files: tuple[File, ...]) -> None:
    step = story.execution.steps[index]
    _result(story, step.plan.name, step.asked, output, files)
    _proceed(story, index + 1)


def _proceed(story: Story, index: int) -> None:
    """The next step, or the end."""
    if index < len(story.execution.steps):
        _begin(story, index)
        return
    published = [file for step in story.execution.steps for file in step.files]
    story.tell(
        events.ExecutionCompleted,
        files=len(published),
        rows=sum(file.rows for file in published),
        bytes=sum(file.bytes for file in published),
    )


def _result(story: Story, step: str, attempt: int, output: object, files: tuple[File, ...]) -> None:
    story.tell(events.StepCompleted, step=step, attempt=attempt, output=output)
    for file in files:
        story.tell(events.FilePublished, step=step, file=file)


def _begin(story: Story, index: int) -> None:
    request = story.execution.request
    if story.execution.status is Status.PENDING and request and request.origin in _NO_PENDING_PHASE:
        story.tell(events.ExecutionStarted)
    story.ask(index)


def _taken_over(story: Story, original: Execution | None) -> int:
    """Results of the original, in order, up to the first step that has none; how many there are."""
    taken = 0
    for step, former in zip(story.execution.steps, original.steps if original else (), strict=False):
        if former.status is not StepStatus.COMPLETED or former.plan != step.plan:
            break
        if story.execution.status is Status.PENDING:
            story.tell(events.ExecutionStarted)
        _result(story, step.plan.name, 0, former.output, former.files)
        taken += 1
    return taken


def _schedule_retry(story: Story, step: Step, reason: str, message: str, at: datetime) -> None:
    story.tell(
        events.StepRetryScheduled,
        step=step.plan.name,
        attempt=step.asked,
        reason=reason,
        message=message,
        retry_at=at,
    )


def _wait_for_what_is_away(story: Story, step: Step, reason: str, message: str) -> None:
    """No attempt is counted, but the step's time is."""
    assert step.asked_since is not None, "an attempt that ends was asked for"
    if story.now - step.asked_since >= timedelta(seconds=step.plan.timeout_s):
        _fail(story, step, reason, f"{message}; given up after the step's timeout of {step.plan.timeout_s} s")
        return
    id = ids.attempt_id(story.execution_id, step.plan.name, step.asked)
    at = retry_at(id, step.asked - step.counted, LONGEST_UNCOUNTED_S, story.now)
    _schedule_retry(story, step, reason, message, at)


def _fail(story: Story, step: Step, reason: str, message: str) -> None:
    story.tell(events.StepFailed, step=step.plan.name, attempt=step.asked, reason=reason, message=message)
    story.tell(events.ExecutionFailed, reason=reason, message=message, step=step.plan.name, dead_letter=None)


def _lost(story: Story, index: int) -> None:
    """The worker fell silent: a counted attempt, tried again at once."""
    step = story.execution.steps[index]
    story.revoke("lease_lost", story.execution.attempt_id(index))
    message = f"worker {step.worker} sent no heartbeat for {LEASE.total_seconds():.0f} s"
    if step.counted + 1 >= step.plan.max_attempts:
        _fail(story, step, WORKER_LOST, message)
        return
    _schedule_retry(story, step, WORKER_LOST, message, story.now)
    story.ask(index)
