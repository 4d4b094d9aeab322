"""What a caller sees of an execution, folded from its events in order of `sequence`."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from services.api.core import approvals, steps
from services.api.core.approvals import Word
from services.api.core.steps import HookRun, Mark, Step
from services.contracts import events, public
from services.contracts.events import Event
from services.contracts.status import Status, StepStatus

Parked = dict[int, bytes]
"""Events that came too early: sequence -> value as consumed; no bytes for one that cannot be decoded."""


START = "start"
RUN_AT = "run_at"


class Waiting(Struct, frozen=True, gc=False):
    """What an execution waits for, as `execution.waiting` says it.

    Before it has begun, as its request says it: `start`, the command, or `run_at`, the instant.
    """

    reason: str
    step: str | None
    until: datetime | None


class Failure(Struct, frozen=True, gc=False):
    """Why an execution failed."""

    reason: str
    message: str
    step: str | None
    dead_letter: str | None


class Projection(Struct, frozen=True, gc=False):
    """An execution up to `sequence`. `incomplete`: an event before it could not be read.

    `held`: it was created to be started by a command; `run_at`: not to begin before then. `form`: the values
    of a service request; `authors` are those who changed them.
    """

    execution_id: str
    tenant: str = ""
    sequence: int = 0
    status: Status = Status.PENDING
    principal: str | None = None
    owner: str | None = None
    name: str | None = None
    job_type: str | None = None
    tag: str | None = None
    dataset_id: str | None = None
    dataset_revision: int | None = None
    submitted_at: datetime | None = None
    updated_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    held: bool = False
    run_at: datetime | None = None
    authors: tuple[str, ...] = ()
    form: Any = None
    waiting: Waiting | None = None
    steps: tuple[Step, ...] = ()
    approvals: tuple[Word, ...] = ()
    hooks: tuple[HookRun, ...] = ()
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
        case (
            events.ExecutionRejected()
            | events.ExecutionCompleted()
            | events.ExecutionFailed()
            | events.ExecutionCancelled()
        ):
            return _ended(replace(state, finished_at=at, waiting=None), event)
        case events.ExecutionStarted():
            return replace(state, status=Status.RUNNING, started_at=at)
        case events.ExecutionRerun():
            return replace(state, reruns=(*state.reruns, event.rerun_id))
        case events.ExecutionWaiting():
            waiting = Waiting(event.reason, event.step, event.until)
            return replace(state, status=Status.WAITING, waiting=waiting)
        case events.ExecutionResumed():
            return replace(state, status=Status.RUNNING, waiting=None)
        case events.ExecutionAmended():
            planned = steps.planned_again(state.steps, event)
            authors = (*state.authors, event.requested_by)
            form = public.masked(_values(event.parameters), event.secret_fields)
            return replace(state, form=form, steps=planned, authors=authors)
        case events.ApprovalDecided() | events.ApprovalRemarked():
            return replace(state, approvals=approvals.with_word(state.approvals, event))
        case events.HookCompleted() | events.HookFailed():
            return replace(state, hooks=steps.with_hook(state.hooks, event))
        case events.CommandRefused():
            return state
        case events.FilePublished():
            file = event.file
            return replace(
                state, files=state.files + 1, rows=state.rows + file.rows, bytes=state.bytes + file.bytes
            )
        case _:
            return replace(state, steps=steps.evolve(state.steps, event))


def _ended(
    state: Projection,
    event: events.ExecutionRejected
    | events.ExecutionCompleted
    | events.ExecutionFailed
    | events.ExecutionCancelled,
) -> Projection:
    match event:
        case events.ExecutionRejected():
            errors = tuple({"pointer": e.pointer, "message": e.message} for e in event.errors)
            return replace(state, status=Status.REJECTED, errors=errors)
        case events.ExecutionCompleted():
            return replace(state, status=Status.COMPLETED)
        case events.ExecutionFailed():
            failure = Failure(event.reason, event.message, event.step, event.dead_letter)
            return replace(state, status=Status.FAILED, failure=failure)
        case events.ExecutionCancelled():
            return replace(state, status=Status.CANCELLED)


def _values(parameters: Any) -> Any:
    """The form's values of a service request; None: it is another kind of execution."""
    return parameters.get("values") if isinstance(parameters, dict) else None


def _accepted(state: Projection, event: events.ExecutionAccepted) -> Projection:
    request = event.request
    mark = Mark(StepStatus.NOT_STARTED, event.occurred_at, 0)
    definition = request.definition
    return replace(
        state,
        principal=request.created_by,
        owner=request.owner,
        name=request.name,
        job_type=request.job_type,
        tag=request.tag,
        dataset_id=definition.id if definition else None,
        dataset_revision=definition.revision if definition else None,
        submitted_at=request.requested_at,
        rerun_of=request.rerun_of,
        held=request.hold,
        run_at=request.run_at,
        form=public.masked(
            _values(request.parameters), public.declared(request.definition and request.definition.body)
        ),
        steps=tuple(Step(planned.name, planned.kind, (mark,)) for planned in event.plan),
    )


def waiting_json(state: Projection) -> Any:
    """What the execution waits for, and under `approval` what an approver is asked; None: for nobody."""
    if state.status.terminal:
        return None
    waiting = state.waiting or _not_begun(state)
    asked = next((step for step in state.steps if step.waits and step.waits.reason == "approval"), None)
    if waiting is None and asked is None:
        return None
    approval = None
    if asked is not None and asked.waits is not None:
        own = dict.fromkeys((state.principal, state.owner, *state.authors))
        not_by = [name for name in own if name is not None]
        approval = {"step": asked.name, **msgspec.to_builtins(asked.waits), "not_by": not_by}
    unsaid = {"reason": None, "step": None, "until": None}
    return {**(unsaid if waiting is None else msgspec.to_builtins(waiting)), "approval": approval}


def _not_begun(state: Projection) -> Waiting | None:
    """What keeps it from its first step, as far as events tell: of room and limits only the manager knows."""
    if state.status is not Status.PENDING:
        return None
    if state.held:
        return Waiting(START, None, None)
    return None if state.run_at is None else Waiting(RUN_AT, None, state.run_at)


def encode(state: Projection) -> bytes:
    """As the loop's store keeps it."""
    return msgspec.msgpack.encode(state)


def decode(body: bytes) -> Projection:
    """What `encode` made."""
    return msgspec.msgpack.decode(body, type=Projection)
