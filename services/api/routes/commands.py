"""POST /v1/executions/{id}/cancel and /rerun: store the command, then wait a while for what it did."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from services.api import commands, idempotency, openapi, views
from services.api.bodies import read_json, reply
from services.api.commands import Command, Ended, Unknown
from services.api.keys import Caller
from services.api.parts import AnyParts, Author, Parts
from services.api.problems import Problem, not_found
from services.contracts import ids
from services.contracts.commands import ExecutionCommand
from services.jobs.fields import Faults, Fields
from services.runtime import entropy

ANSWER_WITHIN_S = 5.0
BODY_BYTES_MAX = 8_192
REASON_CHARS_MAX = 500

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
    return await _command(request, id, caller, parts, "cancel", ("reason",))


@router.post(
    "/{id}/rerun",
    operation_id="rerunExecution",
    openapi_extra=openapi.RERUN_BODY,
    responses=openapi.ANSWERED,
)
async def rerun(request: Request, id: Id, caller: Author, parts: AnyParts) -> Response:
    """Run an ended execution again, as a new execution: `rerun_id`. The old one stays as it is."""
    return await _command(request, id, caller, parts, "rerun", ("reason", "reuseResults"))


async def _command(
    request: Request, id: str, caller: Caller, parts: Parts, kind: str, known: tuple[str, ...]
) -> Response:
    key = idempotency.key_of(request)
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    body = await read_json(request, BODY_BYTES_MAX) if has_body else {}
    reason, reuse_results = _read(body, known)
    if not ids.EXECUTION_ID.fullmatch(id):
        raise not_found()
    asked = ExecutionCommand(
        command_id=ids.command_id(caller.tenant, caller.principal, id, kind, key)
        if key
        else entropy.fresh_id(),
        execution_id=id,
        tenant=caller.tenant,
        kind=kind,
        requested_by=caller.principal,
        requested_at=parts.clock.now(),
        reason=reason,
        reuse_results=reuse_results,
    )
    with parts.live.watch(id) as watch:
        body_hash = ids.body_hash(body)
        command = await _give(parts, asked, body_hash)
        if command.body_hash != body_hash:
            raise idempotency.conflict()
        until = asyncio.get_running_loop().time() + ANSWER_WITHIN_S
        while command.answer is None and await watch.wait(until - asyncio.get_running_loop().time()):
            command = await _find(parts, asked) or command
    return _answer(command)


def _read(body: Any, known: tuple[str, ...]) -> tuple[str | None, bool]:
    faults = Faults()
    fields = Fields(body, "", known, faults)
    reason = fields.text("reason", required=False, chars_max=REASON_CHARS_MAX)
    reuse = fields.get("reuseResults")
    if not isinstance(reuse, bool | None):
        faults.add("reuseResults", "expected true or false")
    faults.raise_if_any()
    return reason, bool(reuse)


async def _give(parts: Parts, asked: ExecutionCommand, body_hash: str) -> Command:
    try:
        command = await parts.pool.write(lambda cursor: commands.give(cursor, asked, body_hash))
    except Unknown:
        raise not_found() from None
    except Ended as error:
        raise Problem("command-refused", f"the execution has ended: {error}") from None
    parts.wake_relay()
    return command


async def _find(parts: Parts, asked: ExecutionCommand) -> Command | None:
    return await parts.pool.read(lambda cursor: commands.find(cursor, asked.tenant, asked.command_id))


def _answer(command: Command) -> Response:
    if command.answer == "command.refused":
        raise Problem("command-refused", f"{command.reason}: {command.message}")
    body = views.command(command)
    if command.answer is None:  # it is stored, and will be answered by an event
        return reply(body, 202, {"Location": body["links"]["events"]})
    return reply(body)
