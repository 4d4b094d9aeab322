"""What a caller sees of the steps of an execution and of the hooks beside them."""

from datetime import datetime
from typing import Any, assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from services.contracts import events
from services.contracts.events import StepEvent
from services.contracts.status import StepStatus

HOOKS_MAX = 200
HISTORY_MAX = 200
"""Words that are kept with a step. A loop may say thousands, and the row is written for each of them;
`api.step_event` has them all."""


class Mark(Struct, frozen=True, gc=False):
    """One word of a step's history: the newest HISTORY_MAX of them are shown with the execution."""

    status: StepStatus
    at: datetime
    attempt: int


class Step(Struct, frozen=True, gc=False):
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
    waits: "Waits | None" = None

    @property
    def status(self) -> StepStatus:
        """The latest word."""
        return self.history[-1].status


class Waits(Struct, frozen=True, gc=False):
    """What a step waits for, as `step.waiting` says it. `detail` is what an approver is asked."""

    since: datetime
    reason: str
    until: datetime | None
    content_hash: str | None
    detail: Any


class HookRun(Struct, frozen=True, gc=False):
    """How an action beside a step ended; `reason` None: well."""

    step: str
    hook: str
    on: str
    attempt: int
    at: datetime
    reason: str | None = None
    message: str | None = None


class StepWord(msgspec.Struct, frozen=True):
    """A row of `api.step_event`: one word of one step."""

    step_name: str
    event_type: str
    attempt: int


def evolve(steps: tuple[Step, ...], event: StepEvent) -> tuple[Step, ...]:
    """The steps after an event about one of them."""
    if all(step.name != event.step for step in steps):  # execution.accepted was lost
        steps = (*steps, Step(event.step, "", (Mark(StepStatus.NOT_STARTED, event.occurred_at, 0),)))
    return tuple(_step(step, event) if step.name == event.step else step for step in steps)


def planned_again(steps: tuple[Step, ...], event: events.ExecutionAmended) -> tuple[Step, ...]:
    """The steps of a new plan: those that are known stay as they are."""
    known = {step.name for step in steps}
    mark = Mark(StepStatus.NOT_STARTED, event.occurred_at, 0)
    more = [Step(planned.name, planned.kind, (mark,)) for planned in event.plan if planned.name not in known]
    return (*steps, *more)


def with_hook(
    hooks: tuple[HookRun, ...], event: events.HookCompleted | events.HookFailed
) -> tuple[HookRun, ...]:
    """The newest HOOKS_MAX ends of hooks; the log has them all."""
    run = HookRun(event.step, event.hook, event.on, event.attempt, event.occurred_at)
    if isinstance(event, events.HookFailed):
        run = replace(run, reason=event.reason, message=event.message)
    return (*hooks, run)[-HOOKS_MAX:]


def words(before: tuple[Step, ...], after: tuple[Step, ...]) -> list[StepWord]:
    """What an event added to the histories of steps."""
    known = {step.name: step.history[-1] for step in before}
    return [
        StepWord(step.name, step.history[-1].status.value, step.history[-1].attempt)
        for step in after
        if step.history[-1] != known.get(step.name)
    ]


def _step(step: Step, event: StepEvent) -> Step:
    step = replace(step, waits=None)
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
            waits = Waits(event.occurred_at, event.reason, event.until, event.content_hash, event.detail)
            return _marked(replace(step, waits=waits), StepStatus.RUNNING, event)
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
    return replace(step, history=(*step.history, mark)[-HISTORY_MAX:], attempt=event.attempt)


def as_json(steps: tuple[Step, ...]) -> Any:
    """The steps as the table keeps them, with the latest word on top."""
    return [
        {"name": s.name, "status": s.status.value, **_without_name(msgspec.to_builtins(s))} for s in steps
    ]


def _without_name(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "name"}
