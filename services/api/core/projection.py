"""What a caller sees of an execution, folded from its events in order of `sequence`."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, assert_never

import msgspec

from services.contracts import events
from services.contracts.events import Event
from services.contracts.status import Status, StepStatus

Parked = dict[int, bytes]
"""Events that came too early: sequence -> value as consumed; no bytes for one that cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One word of a step's history, which is appended to and never replaced (S3 3.20)."""

    status: StepStatus
    at: datetime
    attempt: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step. The counts are what its current attempt has finished."""

    name: str
    kind: str
    history: tuple[Mark, ...]
    attempt: int = 0
    worker: str | None = None
    files: int = 0
    rows: int = 0
    bytes: int = 0
    detail: str | None = None
    reason: str | None = None
    message: str | None = None
    retry_at: datetime | None = None

    @property
    def status(self) -> StepStatus:
        """The latest word."""
        return self.history[-1].status


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an execution failed."""

    reason: str
    message: str
    step: str | None
    dead_letter: str | None


@dataclass(frozen=True, slots=True)
class Projection:
    """An execution up to `sequence`. `incomplete`: an event before it could not be read."""

    execution_id: str
    tenant: str = ""
    sequence: int = 0
    status: Status = Status.PENDING
    principal: str | None = None
    name: str | None = None
    job_type: str | None = None
    tag: str | None = None
    dataset_id: str | None = None
    dataset_revision: int | None = None
    submitted_at: datetime | None = None
    updated_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    files: int = 0
    rows: int = 0
    bytes: int = 0
    errors: tuple[dict[str, str], ...] = ()
    failure: Failure | None = None
    rerun_of: str | None = None
    reruns: tuple[str, ...] = ()
    incomplete: bool = False
    parked: Parked = field(default_factory=dict)


def evolve(state: Projection, event: Event) -> Projection:  # noqa: PLR0911 one return an event
    """The projection after the event; it must be the next one. Total: no rule refuses an event."""
    at = event.occurred_at
    state = replace(
        state,
        tenant=event.tenant,
        sequence=event.sequence,
        submitted_at=state.submitted_at or at,
        updated_at=at,
    )
    match event:
        case events.ExecutionAccepted():
            return _accepted(state, event)
        case events.ExecutionRejected():
            errors = tuple({"pointer": e.pointer, "message": e.message} for e in event.errors)
            return replace(state, status=Status.REJECTED, errors=errors, finished_at=at)
        case events.ExecutionStarted():
            return replace(state, status=Status.RUNNING, started_at=at)
        case events.ExecutionCompleted():
            return replace(state, status=Status.COMPLETED, finished_at=at)
        case events.ExecutionFailed():
            failure = Failure(event.reason, event.message, event.step, event.dead_letter)
            return replace(state, status=Status.FAILED, failure=failure, finished_at=at)
        case events.ExecutionCancelled():
            return replace(state, status=Status.CANCELLED, finished_at=at)
        case events.ExecutionRerun():
            return replace(state, reruns=(*state.reruns, event.rerun_id))
        case events.ExecutionWaiting():
            return replace(state, status=Status.WAITING)
        case events.ExecutionResumed():
            return replace(state, status=Status.RUNNING)
        case (
            events.CommandRefused()
            | events.ExecutionAmended()
            | events.ApprovalDecided()
            | events.ApprovalRemarked()
            | events.HookCompleted()
            | events.HookFailed()
        ):
            return state
        case events.FilePublished():
            file = event.file
            return replace(
                state, files=state.files + 1, rows=state.rows + file.rows, bytes=state.bytes + file.bytes
            )
        case _:
            return replace(state, steps=_steps(state.steps, event))


StepEvent = (
    events.StepRunning
    | events.StepProgressed
    | events.StepRetryScheduled
    | events.StepCompleted
    | events.StepFailed
    | events.StepCancelled
    | events.StepWaiting
    | events.StepSkipped
)


def _accepted(state: Projection, event: events.ExecutionAccepted) -> Projection:
    request = event.request
    mark = Mark(StepStatus.NOT_STARTED, event.occurred_at, 0)
    definition = request.definition
    return replace(
        state,
        principal=request.created_by,
        name=request.name,
        job_type=request.job_type,
        tag=request.tag,
        dataset_id=definition.id if definition else None,
        dataset_revision=definition.revision if definition else None,
        submitted_at=request.requested_at,
        rerun_of=request.rerun_of,
        steps=tuple(Step(planned.name, planned.kind, (mark,)) for planned in event.plan),
    )


def _steps(steps: tuple[Step, ...], event: StepEvent) -> tuple[Step, ...]:
    if all(step.name != event.step for step in steps):  # execution.accepted was lost
        steps = (*steps, Step(event.step, "", (Mark(StepStatus.NOT_STARTED, event.occurred_at, 0),)))
    return tuple(_step(step, event) if step.name == event.step else step for step in steps)


def _step(step: Step, event: StepEvent) -> Step:
    match event:
        case events.StepRunning():
            step = replace(step, files=0, rows=0, bytes=0, detail=None, retry_at=None, worker=event.worker)
            return _marked(step, StepStatus.RUNNING, event)
        case events.StepProgressed():
            step = replace(step, files=event.files, rows=event.rows, bytes=event.bytes, detail=event.detail)
            return _marked(step, StepStatus.RUNNING, event)
        case events.StepRetryScheduled():
            step = replace(step, reason=event.reason, message=event.message, retry_at=event.retry_at)
            return _marked(step, StepStatus.RUNNING, event)
        case events.StepCompleted():
            step = replace(step, reason=None, message=None)
            return _marked(step, StepStatus.COMPLETED, event)
        case events.StepFailed():
            step = replace(step, reason=event.reason, message=event.message)
            return _marked(step, StepStatus.FAILED, event)
        case events.StepWaiting():
            step = replace(step, reason=event.reason, message=None, retry_at=event.until)
            return _marked(step, StepStatus.RUNNING, event)
        case events.StepCancelled() | events.StepSkipped():
            step = replace(step, reason=event.reason, message=None, retry_at=None)
            return _marked(step, StepStatus.CANCELLED, event)
    assert_never(event)


def _marked(step: Step, status: StepStatus, event: StepEvent) -> Step:
    """Append the word unless it is the latest one already, for this attempt."""
    latest = step.history[-1]
    if latest.status is status and latest.attempt == event.attempt:
        return step
    mark = Mark(status, event.occurred_at, event.attempt)
    return replace(step, history=(*step.history, mark), attempt=event.attempt)


def encode(state: Projection) -> bytes:
    """As the loop's store keeps it."""
    return msgspec.msgpack.encode(state)


def decode(body: bytes) -> Projection:
    """What `encode` made."""
    return msgspec.msgpack.decode(body, type=Projection)


def steps_json(steps: tuple[Step, ...]) -> Any:
    """The steps as the table keeps them, with the latest word on top."""
    return [
        {"name": s.name, "status": s.status.value, **_without_name(msgspec.to_builtins(s))} for s in steps
    ]


def _without_name(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "name"}
