"""POST /v1/executions: check, seal, commit, answer 202. Accepted means committed.

`Prefer: wait=N` waits for the end and answers 200 with the execution as it ended, or 202 after N seconds.
"""

import asyncio
import re
from typing import Any

from fastapi import APIRouter, Request, Response

from services.api import accepting, duplicates, executions, idempotency, openapi, views
from services.api.accepting import Identity
from services.api.bodies import read_json, reply
from services.api.core import submission
from services.api.core.submission import OnDuplicate, SealedFields, Submission
from services.api.executions import Execution, File
from services.api.keys import Caller
from services.api.parts import AnyParts, Author, Parts
from services.api.problems import Problem, invalid
from services.contracts import ids
from services.contracts.commands import Definition, JobRequested
from services.contracts.errors import FieldError
from services.contracts.status import Status
from services.jobs.refused import Refused
from services.runtime import entropy, sealing

ROUTE = "POST /v1/executions"
BODY_BYTES_MAX = 131_072
WAIT_MAX_S = 30
_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=[,;]|$)", re.ASCII | re.IGNORECASE)
NAMES = SealedFields(sealing.callback_header, sealing.CALLBACK_SECRET, sealing.request_header)

router = APIRouter(prefix="/v1/executions", tags=["executions"], responses=openapi.PROBLEMS)


@router.post(
    "",
    operation_id="submitExecution",
    status_code=202,
    openapi_extra=openapi.SUBMIT_BODY,
    responses={
        200: openapi.json_of("Execution", "it has ended within the time that Prefer gave"),
        202: openapi.json_of("Accepted", "committed: it will run, and end"),
    },
)
async def submit(request: Request, caller: Author, parts: AnyParts) -> Response:
    """Ask for an execution. The same Idempotency-Key with the same body is the same execution."""
    key = idempotency.key_of(request)
    wait_s = _wait_s(request)
    if wait_s is not None:
        parts.door.wait(request.scope, caller)
    body = await read_json(request, BODY_BYTES_MAX)
    execution_id = await take(parts, caller, submission.read(body), key, body, ROUTE)
    if wait_s is None:
        return _accepted(execution_id)
    ended = await _ended(parts, caller, execution_id, wait_s)
    answer = ended or _accepted(execution_id)
    answer.headers["Preference-Applied"] = f"wait={wait_s}"
    return answer


async def take(
    parts: Parts, caller: Caller, asked: Submission, key: str | None, body: Any, route: str
) -> str:
    """The id of the execution that a body asks for, new or known. Raises Problem, Refused, DatabaseAway."""
    execution_id = (
        ids.execution_id(caller.tenant, caller.principal, route, key) if key else entropy.fresh_id()
    )
    is_new = await _submit(parts, caller, asked, Identity(execution_id, key, submission.body_hash(body)))
    if not is_new and asked.on_duplicate is OnDuplicate.RERUN_IF_FAILED:
        return await duplicates.rerun_if_failed(parts, caller, execution_id)
    return execution_id


async def _submit(parts: Parts, caller: Caller, asked: Submission, identity: Identity) -> bool:
    """Store it (True), or find it stored (False). Raises Problem, Refused, DatabaseAway."""
    if identity.key is None and asked.on_duplicate is not OnDuplicate.RETURN_EXISTING:
        raise invalid(
            "onDuplicate", "expected the header Idempotency-Key beside it: it says what is the same"
        )
    try:
        record = await _record(parts, caller, asked, identity.execution_id)
    except Refused:
        # What was accepted stays accepted, whatever changed since.
        if identity.key is None or not await accepting.is_stored(parts, caller, identity):
            raise
        is_new = False
    else:
        stored = await accepting.store(parts, accepting.row(caller, record, identity.body_hash))
        if stored.tenant != caller.tenant or stored.body_hash != identity.body_hash:
            raise idempotency.conflict()
        is_new = stored.is_new
    if not is_new and asked.on_duplicate is OnDuplicate.REJECT:
        raise Problem(
            "duplicate-request",
            f"this Idempotency-Key has asked for the execution {identity.execution_id} before;"
            " send onDuplicate return_existing to be answered with it",
        )
    return is_new


async def _ended(parts: Parts, caller: Caller, execution_id: str, wait_s: int) -> Response | None:
    """The execution's view once it has ended; None when it has not within `wait_s`."""

    def find(cursor: Any) -> tuple[Execution, list[File]] | None:
        row = executions.find(cursor, caller.tenant, execution_id)
        if row is None or not Status(row.status).terminal:
            return None
        return row, executions.files(cursor, caller.tenant, execution_id)

    until = asyncio.get_running_loop().time() + wait_s
    with parts.live.watch(execution_id) as watch:
        while (found := await parts.pool.read(find)) is None:
            if not await watch.wait(until - asyncio.get_running_loop().time()):
                return None
    row, files = found
    return reply(views.execution(row, files, parts.links, parts.public_url, parts.clock.now()))


def _wait_s(request: Request) -> int | None:
    """RFC 7240: the first `wait` counts, at most WAIT_MAX_S of it; what cannot be read is as if not sent."""
    for header in request.headers.getlist("prefer"):
        if match := _WAIT.search(header):
            return min(int(match[1]), WAIT_MAX_S)
    return None


async def _record(parts: Parts, caller: Caller, asked: Submission, execution_id: str) -> JobRequested:
    """The checked record, secrets sealed. Raises Refused."""
    definition = await _definition(parts, caller, asked)
    record = submission.job_requested(
        asked,
        execution_id=execution_id,
        tenant=caller.tenant,
        principal=caller.principal,
        owner=caller.owner,
        definition=definition,
        now=parts.clock.now(),
        seal=lambda plain, field: parts.sealer.seal(plain, caller.tenant, field),
        names=NAMES,
    )
    if asked.pipeline is None:
        accepting.check(parts, record)
        return record
    record, plan = await parts.checking.plan(record, asked)
    accepting.check_sources(parts, record, plan)
    return record


async def _definition(parts: Parts, caller: Caller, asked: Submission) -> Definition | None:
    """What the submission names. Raises Refused when there is none."""
    kind, id = ("dataset", asked.dataset) if asked.pipeline is None else ("pipeline", asked.pipeline)
    if id is None:
        return None
    found = await accepting.definition(parts, caller, id, kind, asked.revision)
    if found is None:
        lists = f"GET /v1/{kind}s"
        revision = ""
        if asked.revision is not None:
            revision, lists = f" revision {asked.revision}", f"GET /v1/{kind}s/{id}/revisions"
        message = f'unknown {kind} "{id}"{revision}; {lists} lists them'
        raise Refused((FieldError(kind, message),))
    return found


def _accepted(execution_id: str) -> Response:
    body = views.accepted(execution_id)
    return reply(body, 202, {"Location": body["links"]["self"]})
