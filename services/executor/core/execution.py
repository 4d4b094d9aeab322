"""What an execution is: the fold of its events. No rules, no I/O."""

from datetime import datetime
from functools import reduce
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from services.contracts import events, ids
from services.contracts.commands import File, JobRequested, Json
from services.contracts.events import Event, PlannedStep
from services.contracts.status import Status, StepStatus
from services.executor.core.retry import UNCOUNTED

COMMANDS_MAX = 1000
"""Commands that an execution remembers; beyond, each one is refused."""


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One step of the plan. Attempts count from 1; an attempt is current while `asked` > `closed`.

    `counted` attempts ended by a fault of the step, not because something was away.
    `asked_since` is the instant of the first attempt, `asked_at` and `running_since` of the current one.
    `retry_at` is when the next attempt is asked for: after a failure, or the first one of a later run.
    `lease_until` and what begins with `asked` belong to the work, not to the history: no event tells of them.
    `progress` is files and rows of the current take, so that a part told twice is one event.
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

    @property
    def current(self) -> bool:
        """Whether an attempt is out and has not ended."""
        return self.asked > self.closed


class Rerun(Struct, frozen=True, kw_only=True, gc=False):
    """What was asked for when this execution was asked for again; `at` is the instant of the event."""

    rerun_id: str
    requested_by: str
    reuse_results: bool
    at: datetime


class Execution(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The state of an execution after its event number `sequence`. `chain` is the hash over their bytes.

    `commands` are the ids of the commands it has answered. `reruns` belong to the work: should the log of
    requests be lost, they are asked for again.
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

    def index_of(self, name: str) -> int:
        """The place of the step with this name."""
        for index, step in enumerate(self.steps):
            if step.plan.name == name:
                return index
        raise KeyError(name)

    def current_step(self, attempt_id: str) -> int | None:
        """The step whose current attempt has this id; none once the execution has ended."""
        if self.status.terminal:
            return None
        for index, step in enumerate(self.steps):
            if step.current and self.attempt_id(index) == attempt_id:
                return index
        return None

    def attempt_id(self, index: int) -> str:
        """The id of the latest attempt of a step."""
        step = self.steps[index]
        return ids.attempt_id(self.execution_id, step.plan.name, step.asked)

    def step_of(self, attempt_id: str) -> int | None:
        """The step that this id names an attempt of, among all attempts that were asked for."""
        for index, step in enumerate(self.steps):
            for attempt in range(step.asked, 0, -1):
                if ids.attempt_id(self.execution_id, step.plan.name, attempt) == attempt_id:
                    return index
        return None

    def with_step(self, index: int, step: Step) -> "Execution":
        """The same with one step changed."""
        return replace(self, steps=(*self.steps[:index], step, *self.steps[index + 1 :]))


StepEvent = (
    events.StepRunning
    | events.StepProgressed
    | events.StepRetryScheduled
    | events.StepCompleted
    | events.StepFailed
    | events.StepCancelled
    | events.StepWaiting
    | events.StepSkipped
    | events.FilePublished
)


def evolve(state: Execution | None, event: Event) -> Execution:  # noqa: PLR0911 one return an event
    """The state after one more event. Total: every event of a legal history has its place."""
    if isinstance(event, events.ExecutionAccepted | events.ExecutionRejected):
        return _born(event)
    assert state is not None, f"{events.type_of(event)} cannot be the first event of an execution"
    at = event.sequence
    match event:
        case events.ExecutionStarted():
            return replace(state, sequence=at, status=Status.RUNNING)
        case events.ExecutionCompleted():
            return replace(state, sequence=at, status=Status.COMPLETED)
        case events.ExecutionFailed():
            return replace(state, sequence=at, status=Status.FAILED)
        case events.ExecutionCancelled():
            return replace(state, sequence=at, status=Status.CANCELLED, commands=_answered(state, event))
        case events.ExecutionRerun() | events.CommandRefused():
            return replace(state, sequence=at, commands=_answered(state, event))
        case events.ExecutionWaiting():
            return replace(state, sequence=at, status=Status.WAITING)
        case events.ExecutionResumed():
            return replace(state, sequence=at, status=Status.RUNNING)
        case (
            events.ExecutionAmended()
            | events.ApprovalDecided()
            | events.ApprovalRemarked()
            | events.HookCompleted()
            | events.HookFailed()
        ):
            return replace(state, sequence=at)
        case _:
            index = state.index_of(event.step)
            step = _step_evolved(state.steps[index], event)
            steps = (*state.steps[:index], step, *state.steps[index + 1 :])
            return replace(state, sequence=at, steps=steps)


def fold(history: list[Event]) -> Execution | None:
    """The state after a whole history."""
    start: Execution | None = None
    return reduce(evolve, history, start)


def _born(event: events.ExecutionAccepted | events.ExecutionRejected) -> Execution:
    born = Execution(
        execution_id=event.execution_id,
        tenant=event.tenant,
        status=Status.REJECTED,
        sequence=event.sequence,
        request_hash=event.request_hash,
    )
    if isinstance(event, events.ExecutionRejected):
        return born
    return replace(born, status=Status.PENDING, request=event.request, steps=_planned(event))


def _planned(event: events.ExecutionAccepted) -> tuple[Step, ...]:
    """The steps as they begin; the first one of a later run waits for its instant, as for a retry."""
    run_at = event.request.run_at
    later = run_at if run_at is not None and run_at > event.occurred_at else None
    return tuple(Step(plan=plan, retry_at=None if index else later) for index, plan in enumerate(event.plan))


def _answered(state: Execution, event: Event) -> tuple[str, ...]:
    if len(state.commands) >= COMMANDS_MAX:
        return state.commands
    return (*state.commands, event.causation_id)


def _step_evolved(step: Step, event: StepEvent) -> Step:
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
                closed=event.attempt,
                lease_until=None,
                retry_at=None,
                output=event.output,
            )
        case events.StepFailed():
            return replace(
                step, status=StepStatus.FAILED, closed=event.attempt, lease_until=None, retry_at=None
            )
        case events.StepWaiting():
            return replace(step, status=StepStatus.RUNNING, asked=event.attempt)
        case events.StepCancelled() | events.StepSkipped():
            return replace(
                step, status=StepStatus.CANCELLED, closed=event.attempt, lease_until=None, retry_at=None
            )
        case events.FilePublished():
            return replace(step, files=(*step.files, event.file))
    assert_never(event)
