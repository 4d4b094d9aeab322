"""What an execution is: the fold of its events. No rules, no I/O."""

from datetime import datetime, timedelta
from functools import reduce
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from services.contracts import events, ids
from services.contracts.commands import Definition, File, JobRequested, Json
from services.contracts.events import Event, PlannedStep
from services.contracts.status import Status, StepStatus
from services.executor.core.retry import UNCOUNTED
from services.executor.core.visit import ENDED, Approval, Failure, Hook, Visit, Waiting

COMMANDS_MAX = 1000
"""Commands that an execution remembers; beyond, each one is refused."""


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One step of the plan. Attempts count from 1; an attempt is current while `asked` > `closed`.

    `counted` attempts ended by a fault of the step, not because something was away.
    `asked_since` is the instant of the first attempt, `asked_at` and `running_since` of the current one.
    `retry_at` is when the next attempt is asked for: after a failure, or the first one of a later run.
    `lease_until` and what begins with `asked` belong to the work, not to the history: no event tells of them.
    `progress` is files and rows of the current take, so that a part told twice is one event.
    `visit` is set once a flow leads the step, `hook` makes it an action beside one. `queued_since` is set
    while the current attempt waits in the manager: nobody was asked yet (core/admission.py). `ordered_at` is
    when its order went out, if that was not at `asked_at`.
    """

    plan: PlannedStep
    status: StepStatus = StepStatus.NOT_STARTED
    asked: int = 0
    asked_since: datetime | None = None
    asked_at: datetime | None = None
    running_since: datetime | None = None
    closed: int = 0
    counted: int = 0
    take_id: str | None = None
    worker: str | None = None
    lease_until: datetime | None = None
    retry_at: datetime | None = None
    progress: tuple[int, int] = (0, 0)
    files: tuple[File, ...] = ()
    output: Json = None
    visit: Visit | None = None
    hook: Hook | None = None
    queued_since: datetime | None = None
    ordered_at: datetime | None = None

    @property
    def current(self) -> bool:
        """Whether an attempt is out and has not ended."""
        return self.asked > self.closed

    @property
    def ended(self) -> bool:
        """Whether its end has been told; a step that is come to again has not ended again."""
        return self.status.terminal and (self.visit is None or self.visit.phase in ENDED)


class Rerun(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What was asked for when this execution was asked for again; `at` is the instant of the event.

    `definition` is the one to run with, if another than the request's own.
    """

    rerun_id: str
    requested_by: str
    reuse_results: bool
    at: datetime
    owner: str | None = None
    definition: Definition | None = None


class Execution(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The state of an execution after its event number `sequence`. `chain` is the hash over their bytes.

    `commands` are the ids of the commands it has answered. `reruns` belong to the work: should the log of
    requests be lost, they are asked for again.

    Of a pipeline: `agenda` are the steps to come, the first one being led now; `hooks` the actions that
    are out or ended lately, as steps; `runs` how many steps have ended. `waiting` is what it was last said
    to wait for; `ends_at` the instant of its timeout; `authors` who else has a hand in its values; `amended`
    that they were others once.

    `permits` are the limits that it holds a permit of, `awaits` the one that it waits for; `event_bytes` is
    how large its events are in the log.
    """

    execution_id: str
    tenant: str
    status: Status
    sequence: int
    request_hash: str
    request: JobRequested | None = None
    steps: tuple[Step, ...] = ()
    chain: bytes = b""
    commands: tuple[str, ...] = ()
    reruns: tuple[Rerun, ...] = ()
    agenda: tuple[str, ...] = ()
    hooks: tuple[Step, ...] = ()
    error: Failure | None = None
    runs: int = 0
    paused: bool = False
    waiting: Waiting | None = None
    ends_at: datetime | None = None
    authors: tuple[str, ...] = ()
    amended: bool = False
    permits: tuple[str, ...] = ()
    awaits: str | None = None
    event_bytes: int = 0

    @property
    def held(self) -> bool:
        """Whether it waits for the command `start`."""
        return self.status is Status.PENDING and self.request is not None and self.request.hold

    def unit(self, index: int) -> Step:
        """A step, or behind the steps an action beside one: both are asked for and answered alike."""
        count = len(self.steps)
        return self.steps[index] if index < count else self.hooks[index - count]

    def index_of(self, name: str) -> int:
        """The place of the step with this name."""
        for index, step in enumerate(self.steps):
            if step.plan.name == name:
                return index
        raise KeyError(name)

    def current_step(self, attempt_id: str) -> int | None:
        """The unit whose current attempt has this id; once the execution has ended, only an action's."""
        if not self.status.terminal:
            for index, step in enumerate(self.steps):
                if step.current and self.attempt_id(index) == attempt_id:
                    return index
        for index, hook in enumerate(self.hooks, len(self.steps)):
            if hook.current and self.attempt_id(index) == attempt_id:
                return index
        return None

    def attempt_id(self, index: int) -> str:
        """The id of the latest attempt of a unit."""
        step = self.unit(index)
        return ids.attempt_id(self.execution_id, step.plan.name, step.asked)

    def step_of(self, attempt_id: str) -> int | None:
        """The unit that this id names an attempt of, among all attempts that were asked for."""
        for index, step in enumerate((*self.steps, *self.hooks)):
            for attempt in range(step.asked, 0, -1):
                if ids.attempt_id(self.execution_id, step.plan.name, attempt) == attempt_id:
                    return index
        return None

    def with_step(self, index: int, step: Step) -> "Execution":
        """The same with one unit changed."""
        if (place := index - len(self.steps)) >= 0:
            return replace(self, hooks=(*self.hooks[:place], step, *self.hooks[place + 1 :]))
        return replace(self, steps=(*self.steps[:index], step, *self.steps[index + 1 :]))


_STEP_ENDS = (events.StepCompleted, events.StepFailed, events.StepSkipped)


def evolve(state: Execution | None, event: Event) -> Execution:  # noqa: PLR0911, PLR0912 one return an event
    """The state after one more event. Total: every event of a legal history has its place."""
    if isinstance(event, events.ExecutionAccepted | events.ExecutionRejected):
        return _born(event)
    assert state is not None, f"{events.type_of(event)} cannot be the first event of an execution"
    at = event.sequence
    match event:
        case events.ExecutionStarted():
            return _started(state, event)
        case events.ExecutionCompleted():
            return replace(state, sequence=at, status=Status.COMPLETED)
        case events.ExecutionFailed():
            return replace(state, sequence=at, status=Status.FAILED)
        case events.ExecutionCancelled():
            return replace(state, sequence=at, status=Status.CANCELLED, commands=_answered(state, event))
        case events.ExecutionRerun() | events.CommandRefused():
            return replace(state, sequence=at, commands=_answered(state, event))
        case events.ExecutionWaiting() | events.ExecutionResumed():
            return _waited(state, event)
        case events.ExecutionAmended():
            return _amended(state, event)
        case events.ApprovalDecided():
            return _decided(state, event)
        case events.ApprovalRemarked():
            return replace(state, sequence=at, commands=_answered(state, event))
        case events.HookCompleted() | events.HookFailed():
            return replace(state, sequence=at)
        case _:
            index = state.index_of(event.step)
            step = _step_evolved(state.steps[index], event)
            steps = (*state.steps[:index], step, *state.steps[index + 1 :])
            if not isinstance(event, _STEP_ENDS):
                return replace(state, sequence=at, steps=steps)
            error = state.error
            if isinstance(event, events.StepFailed):
                error = Failure(step=event.step, reason=event.reason, message=event.message)
            return replace(state, sequence=at, steps=steps, runs=state.runs + 1, error=error)


def fold(history: list[Event]) -> Execution | None:
    """The state after a whole history."""
    start: Execution | None = None
    return reduce(evolve, history, start)


def _born(event: events.ExecutionAccepted | events.ExecutionRejected) -> Execution:
    if isinstance(event, events.ExecutionRejected):
        return Execution(
            execution_id=event.execution_id,
            tenant=event.tenant,
            status=Status.REJECTED,
            sequence=event.sequence,
            request_hash=event.request_hash,
        )
    request, plan = event.request, event.plan
    return Execution(
        execution_id=event.execution_id,
        tenant=event.tenant,
        status=Status.PENDING,
        sequence=event.sequence,
        request_hash=event.request_hash,
        request=request,
        steps=_planned(event),
        agenda=(plan[0].name,) if plan and plan[0].flow is not None else (),
        ends_at=None if request.hold else _ends_at(request, event.occurred_at),
    )


def _ends_at(request: JobRequested, at: datetime) -> datetime | None:
    """The time of an execution runs from when it may begin."""
    if request.timeout_s is None:
        return None
    return max(at, request.run_at or at) + timedelta(seconds=request.timeout_s)


def _planned(event: events.ExecutionAccepted) -> tuple[Step, ...]:
    """The steps as they begin; the first one of a later run waits for its instant, as for a retry."""
    run_at = None if event.request.hold else event.request.run_at
    later = run_at if run_at is not None and run_at > event.occurred_at else None
    return tuple(Step(plan=plan, retry_at=None if index else later) for index, plan in enumerate(event.plan))


def _started(state: Execution, event: events.ExecutionStarted) -> Execution:
    started = replace(state, sequence=event.sequence, status=Status.RUNNING)
    if not state.held or state.request is None:
        return started
    ends_at = _ends_at(state.request, event.occurred_at)
    return replace(started, commands=_answered(state, event), ends_at=ends_at)


def _waited(state: Execution, event: events.ExecutionWaiting | events.ExecutionResumed) -> Execution:
    """Pauses begin and end by commands, and a pause before a step ends by one; the others by what comes."""
    waiting = (
        Waiting(reason=event.reason, step=event.step) if isinstance(event, events.ExecutionWaiting) else None
    )
    asked_for = event.reason == "paused" or (event.reason == "pause_before" and waiting is None)
    return replace(
        state,
        sequence=event.sequence,
        status=Status.WAITING if waiting else Status.RUNNING,
        paused=waiting is not None if event.reason == "paused" else state.paused,
        waiting=waiting,
        commands=_answered(state, event) if asked_for else state.commands,
    )


def _amended(state: Execution, event: events.ExecutionAmended) -> Execution:
    """Steps that have begun stay as they are; what was said for the old values counts no more."""
    assert state.request is not None, "only what was accepted is amended"
    steps = tuple(
        replace(step, plan=plan)
        if step.visit is None and not step.asked
        else replace(step, visit=replace(step.visit, approvals=()) if step.visit else None)
        for step, plan in zip(state.steps, event.plan, strict=True)
    )
    return replace(
        state,
        sequence=event.sequence,
        request=replace(state.request, parameters=event.parameters),
        steps=steps,
        commands=_answered(state, event),
        authors=(*state.authors, event.requested_by),
        amended=True,
    )


def _decided(state: Execution, event: events.ApprovalDecided) -> Execution:
    index = state.index_of(event.step)
    step = state.steps[index]
    visit = step.visit or Visit()
    if event.decision == "approved":
        assert event.decided_by is not None, "somebody approves"
        word = Approval(by=event.decided_by, owner=event.owner, form=event.form)
        visit = replace(visit, approvals=(*visit.approvals, word))
    if event.decision != "approved" or event.approvals >= event.quorum:
        visit = replace(visit, decision=event.decision)
    commands = state.commands if event.decision == "expired" else _answered(state, event)
    decided = state.with_step(index, replace(step, visit=visit))
    return replace(decided, sequence=event.sequence, commands=commands)


def _answered(state: Execution, event: Event) -> tuple[str, ...]:
    # Beyond the limit only a cancellation comes here, which is the last word.
    if len(state.commands) >= COMMANDS_MAX and not isinstance(event, events.ExecutionCancelled):
        return state.commands
    return (*state.commands, event.causation_id)


def _step_evolved(step: Step, event: events.StepEvent | events.FilePublished) -> Step:
    match event:
        case events.StepRunning():
            return replace(
                step,
                status=StepStatus.RUNNING,
                asked=event.attempt,
                take_id=event.take_id,
                worker=event.worker,
                running_since=event.occurred_at,
                progress=(0, 0),
                retry_at=None,
            )
        case events.StepProgressed():
            return replace(step, progress=(event.files, event.rows))
        case events.StepRetryScheduled():
            return replace(
                step,
                closed=event.attempt,
                counted=step.counted + (event.reason not in UNCOUNTED),
                take_id=None,
                running_since=None,
                lease_until=None,
                retry_at=event.retry_at,
            )
        case events.StepCompleted():
            return replace(
                step,
                status=StepStatus.COMPLETED,
                asked=max(step.asked, event.attempt),
                closed=event.attempt,
                lease_until=None,
                retry_at=None,
                output=event.output,
            )
        case events.StepFailed():
            return _closed(step, StepStatus.FAILED, event.attempt)
        case events.StepWaiting():
            visit = replace(step.visit or Visit(), until=event.until, content_hash=event.content_hash)
            return replace(step, status=StepStatus.RUNNING, visit=visit)
        case events.StepCancelled() | events.StepSkipped():
            return _closed(step, StepStatus.CANCELLED, event.attempt)
        case events.FilePublished():
            return replace(step, files=(*step.files, event.file))
    assert_never(event)


def _closed(step: Step, status: StepStatus, attempt: int) -> Step:
    asked = max(step.asked, attempt)
    return replace(step, status=status, asked=asked, closed=attempt, lease_until=None, retry_at=None)
