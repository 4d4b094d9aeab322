"""Commands to executions: stored with their record, published by the relay, answered by an event.

The projector writes the answer into the row in the transaction that makes the event visible. Until then the
row keeps the record, so that a log that was lost can be filled again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from psycopg2.extras import execute_values

from services.api.core.ownership import may_command
from services.api.keys import Role
from services.api.quota import reserve
from services.contracts import envelope, events, ids
from services.contracts.commands import ExecutionCommand
from services.contracts.events import Event, type_of
from services.contracts.status import Status
from services.runtime import outbox, schemas
from services.runtime.processor.types import Row
from services.runtime.settings import Quota

TOPIC = "execution.commands"
_COLUMNS = "command_id, execution_id, kind, body_hash, rerun_id, requested_at, answer, reason, message"


@dataclass(frozen=True, slots=True)
class Command:
    """One row of api.command, without the record."""

    command_id: str
    execution_id: str
    kind: str
    body_hash: str
    rerun_id: str | None
    requested_at: datetime
    answer: str | None
    reason: str | None
    message: str | None


class Unknown(Exception):
    """The tenant has no such execution."""


class NotOwn(Exception):
    """An author's command to what somebody else asked for."""

    def __init__(self, principal: str | None) -> None:
        super().__init__(
            f"expected an execution that you asked for, found one of {principal};"
            " operators command those of others"
        )


class Ended(Exception):
    """The execution has ended: there is nothing to cancel."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


def give(
    cursor: Any, asked: ExecutionCommand, body_hash: str, quota: Quota, job_type: str | None = None
) -> Command:
    """Store a command and its record, or return what is stored under its id.

    Raises Unknown, NotOwn, Ended, and OverQuota where it leads to another execution. With a `job_type`,
    executions of others are as unknown as those of other tenants.

    The execution's row is locked: commands of one execution get their reruns' numbers one after the other.
    Call the relay's `wake` after the commit.
    """
    cursor.execute(
        "SELECT state, principal, owner FROM api.job_request WHERE execution_id = %s AND tenant = %s"
        " AND (%s::text IS NULL OR job_type = %s) FOR UPDATE",
        (asked.execution_id, asked.tenant, job_type, job_type),
    )
    row = cursor.fetchone()
    if row is None:
        raise Unknown
    state, *by = row
    if not may_command(
        asked.kind,
        is_operator=asked.role is not None and Role(asked.role).covers(Role.OPERATOR),
        asks=(asked.requested_by, asked.owner),
        asked=(by[0], by[1]),
    ):
        raise NotOwn(by[0])
    stored = find(cursor, asked.tenant, asked.command_id)
    if stored is not None:
        return stored
    if asked.kind == "cancel" and Status(state).terminal:
        raise Ended(state)
    if asked.kind == "rerun":
        reserve(cursor, asked.tenant, quota.of(asked.tenant))
        asked = replace(asked, rerun_id=_next_rerun(cursor, asked.execution_id))
    value = schemas.codec().encode(asked)
    cursor.execute(
        "INSERT INTO api.command (command_id, execution_id, tenant, principal, kind, body_hash, rerun_id,"
        " record, requested_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(asked.command_id, asked.execution_id, asked.tenant, asked.requested_by, asked.kind),
            *(body_hash, asked.rerun_id, value, asked.requested_at),
        ),
    )
    outbox.add(cursor, "api", [envelope.command(asked, value)])
    return Command(
        asked.command_id,
        asked.execution_id,
        asked.kind,
        body_hash,
        asked.rerun_id,
        asked.requested_at,
        *(None, None, None),
    )


def _next_rerun(cursor: Any, execution_id: str) -> str:
    cursor.execute(
        "UPDATE api.job_request SET rerun_count = rerun_count + 1 WHERE execution_id = %s"
        " RETURNING rerun_count",
        (execution_id,),
    )
    return ids.rerun_id(execution_id, cursor.fetchone()[0])


def find(cursor: Any, tenant: str, command_id: str) -> Command | None:
    """A command of the tenant."""
    cursor.execute(
        f"SELECT {_COLUMNS} FROM api.command WHERE command_id = %s AND tenant = %s",  # noqa: S608
        (command_id, tenant),
    )
    row = cursor.fetchone()
    return None if row is None else Command(*row)


def publish_again(cursor: Any) -> int:
    """Put every command without an answer into the outbox: how many."""
    cursor.execute(
        "SELECT record FROM api.command WHERE record IS NOT NULL ORDER BY requested_at, command_id"
    )
    values = [bytes(value) for (value,) in cursor.fetchall()]
    if values:
        outbox.add(cursor, "api", [_record(value) for value in values])
    return len(values)


def _record(value: bytes) -> envelope.Outgoing:
    command = schemas.codec().decode(TOPIC, value)
    assert isinstance(command, ExecutionCommand)
    return envelope.command(command, value)


def answer_rows(event: Event, *, held: bool) -> tuple[Row, ...]:
    """What the projector writes for an event that answers a command; nothing for another one.

    `held`: the execution waited for the command `start`. Others start by themselves, and nobody asks.
    """
    match event:
        case (
            events.ExecutionCancelled()
            | events.ExecutionWaiting()
            | events.ExecutionResumed()
            | events.ExecutionAmended()
            | events.ApprovalDecided()
            | events.ApprovalRemarked()
        ):
            return (_answer(event, None, None),)
        case events.ExecutionStarted() if held:
            return (_answer(event, None, None),)
        case events.CommandRefused():
            return (_answer(event, event.reason, event.message),)
        case events.ExecutionRerun():
            rerun = {"execution_id": event.execution_id, "tenant": event.tenant, "rerun_id": event.rerun_id}
            asked = {"requested_by": event.requested_by, "at": event.occurred_at}
            return (_answer(event, None, None), Row("rerun", rerun | asked))
        case _:
            return ()


def _answer(event: Event, reason: str | None, message: str | None) -> Row:
    return Row(
        "answer",
        {
            "command_id": event.causation_id,
            "execution_id": event.execution_id,
            "answer": type_of(event),
            "reason": reason,
            "message": message,
            "at": event.occurred_at,
        },
    )


def write_answers(cursor: Any, answers: Sequence[Any], reruns: Sequence[Any]) -> Counter[str]:
    """Write the rows of `answer_rows`. A rerun is known from here on, though its own events come later.

    Returns by how much each tenant has more executions open than were reserved.
    """
    opened: Counter[str] = Counter()
    if answers:
        written = execute_values(cursor, _ANSWERS, answers, _ANSWER_TEMPLATE, page_size=500, fetch=True)
        opened.subtract(tenant for tenant, kind in written if kind == "rerun")
    for rerun in reruns:
        cursor.execute(_RERUN, rerun)
        opened.update(tenant for (tenant,) in cursor.fetchall())
    return opened


_ANSWERS = (
    "UPDATE api.command AS command SET record = NULL, answer = given.answer, reason = given.reason,"
    " message = given.message, answered_at = given.at"
    " FROM (VALUES %s) AS given (command_id, execution_id, answer, reason, message, at)"
    " WHERE command.command_id = given.command_id AND command.execution_id = given.execution_id"
    " AND command.answer IS NULL RETURNING command.tenant, command.kind"
)
_ANSWER_TEMPLATE = (
    "(%(command_id)s, %(execution_id)s, %(answer)s, %(reason)s, %(message)s, %(at)s::timestamptz)"
)
_RERUN = """
    INSERT INTO api.job_request (execution_id, tenant, principal, name, job_type, tag, dataset_id,
                                 dataset_revision, submitted_at, request_data, requested_channel, rerun_of)
    SELECT %(rerun_id)s, tenant, %(requested_by)s, name, job_type, tag, dataset_id, dataset_revision, %(at)s,
           request_data, requested_channel, execution_id
    FROM api.job_request WHERE execution_id = %(execution_id)s AND tenant = %(tenant)s
    ON CONFLICT (execution_id) DO NOTHING RETURNING tenant
"""
