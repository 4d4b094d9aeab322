"""POST /v1/executions: check, seal, commit, answer 202. Accepted means committed."""

import asyncio
import json
import re
from typing import Any

from fastapi import APIRouter, Request, Response

from services import jobs
from services.api import definitions, executions, openapi, views
from services.api.bodies import read_json, reply
from services.api.core import exhaust, submission
from services.api.core.submission import SealedFields, Submission
from services.api.definitions import Name
from services.api.intake import WITHIN_S, Overloaded, Stored, Submit
from services.api.intake import Refused as Unstorable
from services.api.keys import Caller
from services.api.parts import AnyParts, Author, Parts
from services.api.pool import DatabaseAway
from services.api.problems import Problem, invalid, unavailable
from services.contracts import envelope, ids
from services.contracts.commands import Definition, JobRequested
from services.contracts.errors import FieldError
from services.contracts.names import REQUEST_BYTES_MAX
from services.jobs.refused import Refused
from services.runtime import entropy, schemas, sealing

ROUTE = "POST /v1/executions"
BODY_BYTES_MAX = 131_072
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?", re.ASCII)
_NAMES = SealedFields(sealing.callback_header, sealing.CALLBACK_SECRET, sealing.request_header)

router = APIRouter(prefix="/v1/executions", tags=["executions"], responses=openapi.PROBLEMS)


@router.post(
    "",
    operation_id="submitExecution",
    status_code=202,
    openapi_extra=openapi.SUBMIT_BODY,
    responses={202: openapi.json_of("Accepted", "committed: it will run, and end")},
)
async def submit(request: Request, caller: Author, parts: AnyParts) -> Response:
    """Ask for an execution. The same Idempotency-Key with the same body is the same execution."""
    key = _idempotency_key(request)
    body = await read_json(request, BODY_BYTES_MAX)
    asked = submission.read(body)
    execution_id = (
        ids.execution_id(caller.tenant, caller.principal, ROUTE, key) if key else entropy.fresh_id()
    )
    body_hash = ids.body_hash(body)
    try:
        record = await _record(parts, caller, asked, execution_id)
    except Refused:
        if key and await _is_stored(parts, caller, execution_id, body_hash):
            return _accepted(execution_id)  # what was accepted stays accepted, whatever changed since
        raise
    stored = await _store(parts, _row(caller, record, body_hash))
    if stored.tenant != caller.tenant or stored.body_hash != body_hash:
        raise _conflict()
    return _accepted(execution_id)


def _idempotency_key(request: Request) -> str | None:
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        raise invalid("Idempotency-Key", "expected one header of 1 to 255 printable ASCII characters")
    return values[0]


async def _record(parts: Parts, caller: Caller, asked: Submission, execution_id: str) -> JobRequested:
    """The checked record, secrets sealed. Raises Refused."""
    definition = None if asked.dataset is None else await _definition(parts, caller, asked.dataset)
    record = submission.job_requested(
        asked,
        execution_id=execution_id,
        tenant=caller.tenant,
        principal=caller.principal,
        definition=definition,
        now=parts.clock.now(),
        seal=lambda plain, field: parts.sealer.seal(plain, caller.tenant, field),
        names=_NAMES,
    )
    jobs.plan(record)
    return record


async def _definition(parts: Parts, caller: Caller, id: str) -> Definition:
    name = Name(caller.tenant, "dataset", id)
    row = await parts.pool.read(lambda cursor: definitions.current(cursor, name))
    if row is None:
        raise Refused((FieldError("dataset", f'unknown dataset "{id}"; GET /v1/datasets lists them'),))
    return Definition(kind=name.kind, id=row.id, revision=row.revision, body=row.body)


def _row(caller: Caller, record: JobRequested, body_hash: str) -> Submit:
    definition = record.definition
    value = schemas.codec().encode(record)
    if len(value) > REQUEST_BYTES_MAX:
        message = (
            f"the request and its dataset take {len(value)} bytes: expected at most {REQUEST_BYTES_MAX};"
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
        request_data=json.dumps(exhaust.request_data(record)),
        requested_channel=record.requested_channel,
        submitted_at=record.requested_at,
        record=envelope.command(record, value),
    )


async def _store(parts: Parts, row: Submit) -> Stored:
    try:
        return await asyncio.wait_for(asyncio.wrap_future(parts.intake.submit(row)), WITHIN_S)
    except Overloaded:
        raise unavailable("too many requests are waiting to be stored") from None
    except TimeoutError:
        raise DatabaseAway("the database does not answer") from None
    except Unstorable as error:
        raise Problem("invalid-request", str(error)) from None


async def _is_stored(parts: Parts, caller: Caller, execution_id: str, body_hash: str) -> bool:
    """Whether this very body was accepted earlier. Raises Problem (409) when another one was."""

    def find(cursor: Any) -> str | None:
        return executions.body_hash(cursor, caller.tenant, execution_id)

    stored = await parts.pool.read(find)
    if stored is not None and stored != body_hash:
        raise _conflict()
    return stored is not None


def _accepted(execution_id: str) -> Response:
    body = views.accepted(execution_id)
    return reply(body, 202, {"Location": body["links"]["self"]})


def _conflict() -> Problem:
    return Problem(
        "idempotency-conflict",
        "this Idempotency-Key was used with another body; use a new key for a new request",
    )
