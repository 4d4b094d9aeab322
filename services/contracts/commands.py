"""The records that ask for something or report work: every topic but `execution.events`.

Field order is the order of the Avro schemas in `schemas/commands`. `Json` fields travel as JSON text,
because their shape belongs to a job type or a step kind and not to the log.

Records are Structs: one is made, compared and packed several times as fast as a frozen dataclass, and however
many there are, the garbage collector has nothing to look at (none is part of a cycle).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct, field

Json = Any


class Definition(Struct, frozen=True, kw_only=True, gc=False):
    """A definition as it stood when the request was made: enough to run from scratch (S0 0.13)."""

    kind: str
    id: str
    revision: int
    body: Json


class Callback(Struct, frozen=True, kw_only=True, gc=False):
    """S2's callback (2.5). Values of `headers` and `secret` are sealed; `events` may hold S2's names."""

    events: tuple[str, ...]
    url: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: str | None = None


class JobRequested(Struct, frozen=True, kw_only=True, gc=False):
    """`job.requested`, key = execution id: everything needed to run one execution (S0 0.11, 0.14-0.21).

    `definition` is resolved by api; another service may name one in `definition_id` instead.
    `origin` is ad_hoc, scheduled, manual, backfill or external; `planned_at` is set for firings. No step is
    asked for before `run_at`. A rerun names its original in `rerun_of`; `reuse_results` takes over what the
    original had completed. `requested_channel` is the channel of S1's caller. `hold` waits for the command
    `start`. `owner` is the person to whom the requester's key belongs. `priority` is 0 low, 1 normal, 2 high.
    `timeout_s` bounds the whole execution. `limits` are objects {key, max, holds_paused}: at most `max`
    executions with that key have steps out at one time.
    """

    execution_id: str
    tenant: str
    requested_at: datetime
    created_by: str
    name: str
    job_type: str
    origin: str = "external"
    tag: str | None = None
    definition_id: str | None = None
    definition: Definition | None = None
    parameters: Json = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    actions: Json = field(default_factory=list)
    callbacks: tuple[Callback, ...] = ()
    recurrence: str | None = None
    planned_at: datetime | None = None
    run_at: datetime | None = None
    rerun_of: str | None = None
    reuse_results: bool = False
    requested_channel: str | None = None
    hold: bool = False
    owner: str | None = None
    priority: int = 1
    timeout_s: int | None = None
    limits: Json | None = None


class StepRequested(Struct, frozen=True, kw_only=True, gc=False):
    """`step.requested` (`step.requested.long` for LONG_KINDS), key = attempt id: one attempt of a step.

    `visit` counts how often the execution has come to the step; attempts go on over visits.
    """

    attempt_id: str
    execution_id: str
    tenant: str
    step: str
    kind: str
    attempt: int
    parameters: Json
    timeout_s: int
    requested_at: datetime
    visit: int = 1


class StepReport(Struct, frozen=True, kw_only=True, gc=False):
    """`step.progressed`, key = execution id: what a take of an attempt says while it runs.

    `kind` is claim, heartbeat or part. A part counts what is finished so far: files, rows, bytes.
    """

    execution_id: str
    tenant: str
    attempt_id: str
    take_id: str
    worker: str
    kind: str
    lease_s: int
    reported_at: datetime
    files: int = 0
    rows: int = 0
    bytes: int = 0
    detail: str | None = None


class File(Struct, frozen=True, kw_only=True, gc=False):
    """One finished file. `key` is its place in the blob store, `sha256` that of the bytes a reader gets."""

    name: str
    key: str
    batch: str | None
    rows: int
    bytes: int
    sha256: str
    content_type: str


class StepOutcome(Struct, frozen=True, kw_only=True, gc=False):
    """`step.completed`, key = execution id: how one take of an attempt ended.

    `outcome` is done, retry or fail. `reason` is a stable word, `message` is for people.
    """

    execution_id: str
    tenant: str
    attempt_id: str
    take_id: str
    worker: str
    outcome: str
    finished_at: datetime
    reason: str | None = None
    message: str | None = None
    output: Json = None
    files: tuple[File, ...] = ()


class DefinitionState(Struct, frozen=True, kw_only=True, gc=False):
    """`definition.state`, key = `<kind>/<tenant>/<id>`: the latest revision of a definition."""

    kind: str
    tenant: str
    id: str
    revision: int
    changed_at: datetime
    deleted: bool
    body: Json

    @property
    def key(self) -> str:
        """The record's key, and the name under which others look the definition up."""
        return definition_key(self.kind, self.tenant, self.id)


class ExecutionCommand(Struct, frozen=True, kw_only=True, gc=False):
    """`execution.commands`, key = execution id: somebody wants an execution to change.

    `kind` is cancel, rerun, start, pause, resume, amend, or on an approval approve, reject, remark. Every
    command is answered by an event whose `causation_id` is `command_id`. A rerun names the id of the new
    execution, which api chose, and may bring the `definition` to run it with. `owner`, `role` and `groups`
    are those of the key that gave the command; `values` are a form's, or those of an amended request;
    `content_hash` is what the approver saw.
    """

    command_id: str
    execution_id: str
    tenant: str
    kind: str
    requested_by: str
    requested_at: datetime
    reason: str | None = None
    rerun_id: str | None = None
    reuse_results: bool = False
    step: str | None = None
    values: Json | None = None
    content_hash: str | None = None
    owner: str | None = None
    role: str | None = None
    groups: tuple[str, ...] = ()
    definition: Definition | None = None


class StepControl(Struct, frozen=True, kw_only=True, gc=False):
    """`step.control`, key = execution id: what every worker must know at once.

    `kind` is revoke: stop, and begin no more, what the ids name. No `attempt_id` = every attempt of the
    execution, no `take_id` = every take. `reason` is cancelled, timeout, lease_lost, not_owner or ended.
    """

    execution_id: str
    tenant: str
    kind: str
    reason: str
    issued_at: datetime
    attempt_id: str | None = None
    take_id: str | None = None


Command = (
    JobRequested | StepRequested | StepReport | StepOutcome | DefinitionState | ExecutionCommand | StepControl
)

LONG_KINDS = frozenset({"EXPORT"})
"""Step kinds that run for long: they have a topic and lanes of their own, so that short ones never wait."""
CALL_KINDS = frozenset({"API"})
"""Step kinds that wait for others: they take no lane."""

ORDER_EXPIRED = "order_expired"
"""Why a worker does not begin an order: it asks for a newer one, as this may have been revoked unseen."""


def definition_key(kind: str, tenant: str, id: str) -> str:
    """`<kind>/<tenant>/<id>`."""
    return f"{kind}/{tenant}/{id}"
