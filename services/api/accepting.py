"""What every submit does once its body is read, whatever its surface: check, commit, know it again."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from services import jobs
from services.api import definitions, executions, idempotency, quota
from services.api.core import exhaust as core
from services.api.definitions import Name, Revision
from services.api.intake import Overloaded, Stored, Submit
from services.api.intake import Refused as Unstorable
from services.api.keys import Caller
from services.api.parts import Parts
from services.api.problems import Problem, unavailable
from services.api.quota import OverQuota
from services.contracts import envelope
from services.contracts.commands import Definition, JobRequested
from services.contracts.events import PlannedStep
from services.contracts.names import REQUEST_BYTES_MAX
from services.jobs import sources
from services.runtime import schemas


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a submit the same as another one."""

    execution_id: str
    key: str | None
    body_hash: str
    named: str = idempotency.HEADER


async def definition(
    parts: Parts, caller: Caller, id: str, kind: str = "dataset", revision: int | None = None
) -> Definition | None:
    """A definition of the tenant, as it is now or was at a revision."""
    name = Name(caller.tenant, kind, id)

    def find(cursor: Any) -> Revision | None:
        if revision is None:
            return definitions.current(cursor, name)
        return definitions.at(cursor, name, revision)

    row = await parts.pool.read(find)
    if row is None:
        return None
    return Definition(kind=name.kind, id=row.id, revision=row.revision, body=row.body)


def check(parts: Parts, record: JobRequested) -> None:
    """Raises Refused: what its job type refuses, and sources that are not open to the tenant."""
    check_sources(parts, record, jobs.plan(record))


def check_sources(parts: Parts, record: JobRequested, plan: Sequence[PlannedStep]) -> None:
    """Raises Refused for sources that are not open to the tenant."""
    kind = record.definition.kind if record.definition else "jobType"
    sources.check_plan(parts.source_tenants, record.tenant, plan, kind)


def row(caller: Caller, record: JobRequested, body_hash: str) -> Submit:
    """The checked request, ready to be stored. Raises Problem (413)."""
    definition = record.definition
    value = schemas.codec().encode(record)
    if len(value) > REQUEST_BYTES_MAX:
        message = (
            f"the request and its definition take {len(value)} bytes: expected at most {REQUEST_BYTES_MAX};"
            " name fewer batches or filters, or shorten the dataset's descriptions"
        )
        raise Problem("body-too-large", message)
    return Submit(
        execution_id=record.execution_id,
        tenant=caller.tenant,
        principal=caller.principal,
        name=record.name,
        job_type=record.job_type,
        tag=record.tag or "",
        dataset_id=definition.id if definition else None,
        dataset_revision=definition.revision if definition else None,
        body_hash=body_hash,
        request_data=msgspec.json.encode(core.request_data(record)).decode(),
        requested_channel=record.requested_channel,
        submitted_at=record.requested_at,
        record=envelope.command(record, value),
    )


def begin(parts: Parts, asked: Submit) -> "asyncio.Future[Stored] | None":
    """Queue it for the next commit; None, and nothing queued, when that cannot be done at once."""
    try:
        return parts.intake.submit(asked)
    except Overloaded:
        return None


async def store(parts: Parts, asked: Submit) -> Stored:
    """Commit it, or find what the id holds. Raises Problem, DatabaseAway."""
    try:
        return await parts.intake.submit(asked)
    except Overloaded:
        raise unavailable("too many requests are waiting to be stored") from None
    except OverQuota as error:
        raise quota.problem(error) from None
    except Unstorable as error:
        raise Problem("invalid-request", str(error)) from None


async def is_stored(parts: Parts, caller: Caller, identity: Identity) -> bool:
    """Whether this very body was accepted earlier. Raises Problem (409) when another one was."""

    def find(cursor: Any) -> str | None:
        return executions.body_hash(cursor, caller.tenant, identity.execution_id)

    stored = await parts.pool.read(find)
    if stored is not None and stored != identity.body_hash:
        raise idempotency.conflict(identity.named)
    return stored is not None
