"""`execution.events`: everything that happened to an execution, one immutable record each.

Field order is the order of the Avro schemas in `schemas/events`. `sequence` is dense from 1 within an
execution; `event_id` is a function of execution id and sequence; `causation_id` is the id of the command,
report or timer that caused the event. docs/events.md describes each one.
"""

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from services.contracts.commands import File, JobRequested, Json
from services.contracts.errors import FieldError


class Facts(Struct, frozen=True, kw_only=True, gc=False):
    """What every event carries."""

    event_id: str
    execution_id: str
    tenant: str
    sequence: int
    occurred_at: datetime
    causation_id: str
    correlation_id: str


class PlannedStep(Struct, frozen=True, kw_only=True, gc=False):
    """One step of a plan: self-contained, so that a worker needs nothing else.

    `flow` says how the step is led (contracts/flow.py); none: it is tried, and then comes the next one.
    """

    name: str
    kind: str
    parameters: Json
    timeout_s: int
    max_attempts: int
    flow: Json | None = None


class ExecutionAccepted(Facts, frozen=True, kw_only=True, gc=False):
    """The request passed its checks; it will end in a terminal event."""

    request: JobRequested
    request_hash: str
    plan: tuple[PlannedStep, ...]


class ExecutionRejected(Facts, frozen=True, kw_only=True, gc=False):
    """The request failed its checks; nothing will run."""

    request_hash: str
    errors: tuple[FieldError, ...]


class ExecutionStarted(Facts, frozen=True, kw_only=True, gc=False):
    """The first step was taken by a worker (ad hoc), or the slot fired (scheduled)."""


class ExecutionCompleted(Facts, frozen=True, kw_only=True, gc=False):
    """Every step completed. The counts are over all published files."""

    files: int
    rows: int
    bytes: int


class ExecutionFailed(Facts, frozen=True, kw_only=True, gc=False):
    """The execution ended without its result. `dead_letter` tells where the poison lies."""

    reason: str
    message: str
    step: str | None
    dead_letter: str | None


class ExecutionCancelled(Facts, frozen=True, kw_only=True, gc=False):
    """Somebody ended the execution; nothing of it runs or will run."""

    requested_by: str
    reason: str | None


class ExecutionRerun(Facts, frozen=True, kw_only=True, gc=False):
    """An ended execution was asked for again; the new one is `rerun_id`. Its own status stays."""

    rerun_id: str
    requested_by: str


class ExecutionWaiting(Facts, frozen=True, kw_only=True, gc=False):
    """Nothing of the execution runs until somebody acts or an instant comes.

    `reason` is approval, pause_before, wait_before, wait_after or paused.
    """

    reason: str
    step: str | None
    until: datetime | None


class ExecutionResumed(Facts, frozen=True, kw_only=True, gc=False):
    """What the execution waited for has come; `reason` is that of its `execution.waiting`."""

    reason: str


class ExecutionAmended(Facts, frozen=True, kw_only=True, gc=False):
    """The values of the request were changed before they were used; what was approved of them is void.

    `secret_fields` are values that readers must hide.
    """

    requested_by: str
    parameters: Json
    plan: tuple[PlannedStep, ...]
    secret_fields: tuple[str, ...] = ()


class StepRunning(Facts, frozen=True, kw_only=True, gc=False):
    """A worker's take owns this attempt now."""

    step: str
    attempt: int
    take_id: str
    worker: str


class StepProgressed(Facts, frozen=True, kw_only=True, gc=False):
    """A part of the step is finished; the counts are totals of this attempt."""

    step: str
    attempt: int
    files: int
    rows: int
    bytes: int
    detail: str | None


class StepRetryScheduled(Facts, frozen=True, kw_only=True, gc=False):
    """The attempt ended without a result; the next one is asked for at `retry_at`."""

    step: str
    attempt: int
    reason: str
    message: str
    retry_at: datetime


class StepCompleted(Facts, frozen=True, kw_only=True, gc=False):
    """The attempt's result. Its files are announced by the `file.published` events that follow."""

    step: str
    attempt: int
    output: Json


class StepFailed(Facts, frozen=True, kw_only=True, gc=False):
    """The step will not be tried again."""

    step: str
    attempt: int
    reason: str
    message: str


class StepCancelled(Facts, frozen=True, kw_only=True, gc=False):
    """The step will not run, or not to its end. Attempt 0: it had not been asked for."""

    step: str
    attempt: int
    reason: str


class StepWaiting(Facts, frozen=True, kw_only=True, gc=False):
    """The step has begun and holds no worker: it waits for an approval, a resume or an instant.

    `reason` as in `execution.waiting`; `detail` is what an approver is asked for; `content_hash` names what
    would be approved.
    """

    step: str
    attempt: int
    reason: str
    until: datetime | None
    content_hash: str | None
    detail: Json


class StepSkipped(Facts, frozen=True, kw_only=True, gc=False):
    """The step was passed over; what follows it goes on."""

    step: str
    attempt: int
    reason: str


class ApprovalDecided(Facts, frozen=True, kw_only=True, gc=False):
    """One word on a waiting approval: approved, rejected or expired. `approvals` of `quorum` agree so far.

    `secret_fields` are values of `form` that readers must hide.
    """

    step: str
    decision: str
    decided_by: str | None
    owner: str | None
    reason: str | None
    form: Json
    content_hash: str | None
    approvals: int
    quorum: int
    secret_fields: tuple[str, ...] = ()


class ApprovalRemarked(Facts, frozen=True, kw_only=True, gc=False):
    """Somebody said something about a waiting approval without deciding it."""

    step: str
    remarked_by: str
    remark: str


class HookCompleted(Facts, frozen=True, kw_only=True, gc=False):
    """An action beside a step has ended well.

    `hook` names the action as the definition does; `on` is enter, exit, success or error.
    """

    step: str
    hook: str
    on: str
    attempt: int
    output: Json


class HookFailed(Facts, frozen=True, kw_only=True, gc=False):
    """An action beside a step failed and will not be tried again; an awaited one fails its step."""

    step: str
    hook: str
    on: str
    attempt: int
    reason: str
    message: str


class CommandRefused(Facts, frozen=True, kw_only=True, gc=False):
    """A command changed nothing. `reason` is a stable word, `message` is for people."""

    command: str
    requested_by: str
    reason: str
    message: str


class FilePublished(Facts, frozen=True, kw_only=True, gc=False):
    """A file exists for readers from now on."""

    step: str
    file: File


StepEvent = (
    StepRunning
    | StepProgressed
    | StepRetryScheduled
    | StepCompleted
    | StepFailed
    | StepCancelled
    | StepWaiting
    | StepSkipped
)
"""What tells of the state of one step."""

Event = (
    ExecutionAccepted
    | ExecutionRejected
    | ExecutionStarted
    | ExecutionCompleted
    | ExecutionFailed
    | ExecutionCancelled
    | ExecutionRerun
    | ExecutionWaiting
    | ExecutionResumed
    | ExecutionAmended
    | StepEvent
    | ApprovalDecided
    | ApprovalRemarked
    | HookCompleted
    | HookFailed
    | FilePublished
    | CommandRefused
)

TYPES: Mapping[str, type[Event]] = {
    "execution.accepted": ExecutionAccepted,
    "execution.rejected": ExecutionRejected,
    "execution.started": ExecutionStarted,
    "execution.completed": ExecutionCompleted,
    "execution.failed": ExecutionFailed,
    "execution.cancelled": ExecutionCancelled,
    "execution.rerun": ExecutionRerun,
    "execution.waiting": ExecutionWaiting,
    "execution.resumed": ExecutionResumed,
    "execution.amended": ExecutionAmended,
    "step.running": StepRunning,
    "step.progressed": StepProgressed,
    "step.retry_scheduled": StepRetryScheduled,
    "step.completed": StepCompleted,
    "step.failed": StepFailed,
    "step.cancelled": StepCancelled,
    "step.waiting": StepWaiting,
    "step.skipped": StepSkipped,
    "approval.decided": ApprovalDecided,
    "approval.remarked": ApprovalRemarked,
    "hook.completed": HookCompleted,
    "hook.failed": HookFailed,
    "file.published": FilePublished,
    "command.refused": CommandRefused,
}
NAMES: Mapping[type[Event], str] = {cls: name for name, cls in TYPES.items()}

# The last words about an execution's status. `execution.rerun`, `command.refused` and the ends of hooks that
# nobody waited for may follow them.
TERMINAL = frozenset({"execution.completed", "execution.failed", "execution.cancelled", "execution.rejected"})

# S2's names (2.2, 2.5, 2.17) for sets of ours.
ALIASES: Mapping[str, frozenset[str]] = {
    "EXECUTION": frozenset(name for name in TYPES if name.startswith("execution.")),
    "TASK": frozenset(name for name in TYPES if name.startswith("step.")),
    "on-start": frozenset({"execution.started", "step.running"}),
    "on-task-complete": frozenset({"step.completed", "step.failed", "step.cancelled", "step.skipped"}),
    "on-execution-complete": TERMINAL,
}


def type_of(event: Event) -> str:
    """The event's name on the wire, for example `step.completed`."""
    return NAMES[type(event)]


def matching(names: tuple[str, ...]) -> frozenset[str]:
    """The event types that these names (ours or S2's) ask for; no names = all. KeyError: unknown name."""
    if not names:
        return frozenset(TYPES)
    return frozenset().union(*(ALIASES[name] if name in ALIASES else {NAMES[TYPES[name]]} for name in names))
