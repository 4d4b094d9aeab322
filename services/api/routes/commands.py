"""POST /v1/executions/{id}/cancel and /rerun; what every command does: be stored, and wait for its answer."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from msgspec.structs import replace

from services.api import commands, idempotency, openapi, quota, views
from services.api.bodies import read_json, reply
from services.api.commands import Command, Ended, NotOwn, Unknown
from services.api.keys import Caller
from services.api.parts import AnyParts, Author, Parts
from services.api.problems import Problem, not_found
from services.api.quota import OverQuota
from services.contracts import ids
from services.contracts.commands import ExecutionCommand
from services.jobs.fields import Faults, Fields
from services.runtime import entropy

ANSWER_WITHIN_S = 5.0
BODY_BYTES_MAX = 8_192
REASON_CHARS_MAX = 500
UNACCEPTABLE = frozenset({"bad_form", "reason_required"})
"""Reasons that say what is wrong with the command itself, not with the moment at which it came."""

router = APIRouter(prefix="/v1/executions", tags=["executions"], responses=openapi.PROBLEMS)
Id = Annotated[str, Path(description="40 hex digits, as answered to the submit")]


@router.post(
    "/{id}/cancel",
    operation_id="cancelExecution",
    openapi_extra=openapi.CANCEL_BODY,
    responses=openapi.ANSWERED,
)
async def cancel(request: Request, id: Id, caller: Author, parts: AnyParts) -> Response:
    """End an execution, whatever it does at the moment. What has ended stays as it ended: 409."""
    body = await body_of(request)
    asked = command(caller, parts, id, "cancel", idempotency.key_of(request))
    return await answered(parts, replace(asked, **_read(body, ("reason",))), body)


@router.post(
    "/{id}/rerun",
    operation_id="rerunExecution",
    openapi_extra=openapi.RERUN_BODY,
    responses=openapi.ANSWERED,
)
async def rerun(request: Request, id: Id, caller: Author, parts: AnyParts) -> Response:
    """Run an ended execution again, as a new execution: `rerun_id`. The old one stays as it is."""
    body = await body_of(request)
    asked = command(caller, parts, id, "rerun", idempotency.key_of(request))
    return await answered(parts, replace(asked, **_read(body, ("reason", "reuseResults"))), body)


async def body_of(request: Request, bytes_max: int = BODY_BYTES_MAX) -> Any:
    """The body of a command, which may have none. Raises Problem."""
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    return await read_json(request, bytes_max) if has_body else {}


def command(
    caller: Caller, parts: Parts, id: str, kind: str, key: str | None, step: str | None = None
) -> ExecutionCommand:
    """What the caller wants of an execution, or of a step of it. Raises Problem (404)."""
    if not ids.EXECUTION_ID.fullmatch(id):
        raise not_found()
    what = kind if step is None else f"{kind} {step}"
    return ExecutionCommand(
        command_id=ids.command_id(caller.tenant, caller.principal, id, what, key)
        if key
        else entropy.fresh_id(),
        execution_id=id,
        tenant=caller.tenant,
        kind=kind,
        requested_by=caller.principal,
        requested_at=parts.clock.now(),
        step=step,
        owner=caller.owner,
        role=caller.role.value,
        groups=caller.groups,
    )


async def answered(parts: Parts, asked: ExecutionCommand, body: Any, job_type: str | None = None) -> Response:
    """Store the command and wait for the event that answers it, whichever process projects it."""
    with parts.live.watch(asked.execution_id) as watch:
        body_hash = ids.body_hash(body)
        given = await _give(parts, asked, body_hash, job_type)
        if given.body_hash != body_hash:
            raise idempotency.conflict()
        until = asyncio.get_running_loop().time() + ANSWER_WITHIN_S
        while given.answer is None and await watch.wait(until - asyncio.get_running_loop().time()):
            given = await _find(parts, asked) or given
    return _answer(given)


def _read(body: Any, known: tuple[str, ...]) -> Mapping[str, Any]:
    faults = Faults()
    fields = Fields(body, "", known, faults)
    reason = fields.text("reason", required=False, chars_max=REASON_CHARS_MAX)
    reuse = fields.get("reuseResults")
    if not isinstance(reuse, bool | None):
        faults.add("reuseResults", "expected true or false")
    faults.raise_if_any()
    return {"reason": reason, "reuse_results": bool(reuse)}


async def _give(parts: Parts, asked: ExecutionCommand, body_hash: str, job_type: str | None) -> Command:
    try:
        given = await parts.pool.write(lambda cursor: _stored(cursor, parts, asked, body_hash, job_type))
    except Unknown:
        raise not_found() from None
    except NotOwn as error:
        raise Problem("forbidden", str(error)) from None
    except OverQuota as error:
        raise quota.problem(error) from None
    except Ended as error:
        raise Problem("command-refused", f"already_ended: the execution has ended: {error}") from None
    parts.wake_relay()
    return given


def _stored(
    cursor: Any, parts: Parts, asked: ExecutionCommand, body_hash: str, job_type: str | None
) -> Command:
    return commands.give(cursor, asked, body_hash, parts.quota, job_type)


async def _find(parts: Parts, asked: ExecutionCommand) -> Command | None:
    return await parts.pool.read(lambda cursor: commands.find(cursor, asked.tenant, asked.command_id))


def _answer(given: Command) -> Response:
    if given.answer == "command.refused":
        if given.reason in UNACCEPTABLE:
            raise Problem("command-unacceptable", f"{given.reason}: {given.message}")
        raise Problem("command-refused", f"{given.reason}: {given.message}")
    body = views.command(given)
    if given.answer is None:  # it is stored, and will be answered by an event
        return reply(body, 202, {"Location": body["links"]["events"]})
    return reply(body)
