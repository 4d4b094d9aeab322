"""What an execution is: the fold of its events. No rules, no I/O."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce
from typing import assert_never

from services.contracts import events, ids
from services.contracts.commands import File, JobRequested, Json
from services.contracts.events import Event, PlannedStep
from services.contracts.status import Status, StepStatus
from services.executor.core.retry import UNCOUNTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the plan. Attempts count from 1; an attempt is current while `asked` > `closed`.

    `counted` attempts ended by a fault of the step, not because something was away.
    `asked_since` is the instant of the first attempt, `asked_at` and `running_since` of the current one.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The state of an execution after its event number `sequence`. `chain` is the hash over their bytes."""

    execution_id: str
    tenant: str
    status: Status
    sequence: int
    request_hash: str
    request: JobRequested | None = None
    steps: tuple[Step, ...] = ()
    chain: bytes = field(default=b"")

    def step_of(self, attempt_id: str) -> tuple[int, int] | None:
        """Index of the step and number of the attempt that this id names, of all that were asked for."""
        for index, step in enumerate(self.steps):
            for attempt in range(step.asked, 0, -1):
                if ids.attempt_id(self.execution_id, step.plan.name, attempt) == attempt_id:
                    return index, attempt
        return None

    def with_step(self, name: str, **changes: object) -> "Execution":
        """The same with one step changed."""
        steps = tuple(replace(s, **changes) if s.plan.name == name else s for s in self.steps)  # type: ignore[arg-type]
        return replace(self, steps=steps)


def evolve(state: Execution | None, event: Event) -> Execution:
    """The state after one more event. Total: every event of a legal history has its place."""
    if isinstance(event, events.ExecutionAccepted | events.ExecutionRejected):
        return _born(event)
    assert state is not None, f"{events.type_of(event)} cannot be the first event of an execution"
    state = replace(state, sequence=event.sequence)
    match event:
        case events.ExecutionStarted():
            return replace(state, status=Status.RUNNING)
        case events.ExecutionCompleted():
            return replace(state, status=Status.COMPLETED)
        case events.ExecutionFailed():
            return replace(state, status=Status.FAILED)
        case events.ExecutionCancelled():
            return replace(state, status=Status.CANCELLED)
        case events.ExecutionRerun() | events.CommandRefused():
            return state
        case _:
            return _step_evolved(state, event)


def fold(history: list[Event]) -> Execution | None:
    """The state after a whole history."""
    start: Execution | None = None
    return reduce(evolve, history, start)


def _born(event: events.ExecutionAccepted | events.ExecutionRejected) -> Execution:
    state = Execution(
        execution_id=event.execution_id,
        tenant=event.tenant,
        status=Status.REJECTED,
        sequence=event.sequence,
        request_hash=event.request_hash,
    )
    if isinstance(event, events.ExecutionRejected):
        return state
    steps = tuple(Step(plan=planned) for planned in event.plan)
    return replace(state, status=Status.PENDING, request=event.request, steps=steps)


def _step_evolved(
    state: Execution,
    event: events.StepRunning
    | events.StepProgressed
    | events.StepRetryScheduled
    | events.StepCompleted
    | events.StepFailed
    | events.StepCancelled
    | events.FilePublished,
) -> Execution:
    match event:
        case events.StepRunning():
            return state.with_step(
                event.step,
                status=StepStatus.RUNNING,
                asked=event.attempt,
                take_id=event.take_id,
                worker=event.worker,
                running_since=event.occurred_at,
                progress=(0, 0),
                retry_at=None,
            )
        case events.StepProgressed():
            return state.with_step(event.step, progress=(event.files, event.rows))
        case events.StepRetryScheduled():
            step = next(step for step in state.steps if step.plan.name == event.step)
            return state.with_step(
                event.step,
                closed=event.attempt,
                counted=step.counted + (event.reason not in UNCOUNTED),
                take_id=None,
                running_since=None,
                lease_until=None,
                retry_at=event.retry_at,
            )
        case events.StepCompleted():
            return state.with_step(
                event.step,
                status=StepStatus.COMPLETED,
                closed=event.attempt,
                lease_until=None,
                output=event.output,
            )
        case events.StepFailed():
            return state.with_step(
                event.step, status=StepStatus.FAILED, closed=event.attempt, lease_until=None, retry_at=None
            )
        case events.StepCancelled():
            return state.with_step(
                event.step, status=StepStatus.CANCELLED, closed=event.attempt, lease_until=None, retry_at=None
            )
        case events.FilePublished():
            files = next(step.files for step in state.steps if step.plan.name == event.step)
            return state.with_step(event.step, files=(*files, event.file))
    assert_never(event)
