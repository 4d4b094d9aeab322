"""POST /v1/requests/{id}/...: start, end, repeat, pause, amend, and decide approvals.

Each is a command: stored, published, and answered by the event that it caused (200), or `command.refused`
(409, or 422 where the command itself lacks something); after 5 s by 202 and where to look.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from msgspec.structs import replace

from services.api import accepting, executions, idempotency, openapi, openapi_pipelines
from services.api.core import command_bodies
from services.api.core.submission import PIPELINE
from services.api.executions import Execution
from services.api.keys import Caller
from services.api.parts import AnyParts, Author, Parts
from services.api.problems import not_found
from services.api.request_views import ROUTE
from services.api.routes.commands import answered, body_of, command
from services.api.routes.requests import Id
from services.contracts.commands import Definition
from services.contracts.ids import EXECUTION_ID
from services.jobs import pipeline

AMEND_BYTES_MAX = 131_072
LATEST = "latest"

router = APIRouter(prefix=ROUTE, tags=["requests"], responses=openapi.PROBLEMS)
Step = Annotated[str, Path(description="the name of a WAIT_FOR_APPROVAL step")]


@router.post(
    "/{id}/start",
    operation_id="startRequest",
    openapi_extra=openapi_pipelines.REASON_BODY,
    responses=openapi.ANSWERED,
)
async def start(id: Id, request: Request, caller: Author, parts: AnyParts) -> Response:
    """Begin a request that was created with `start: false`."""
    return await _simple(id, request, caller, parts, "start")


@router.post(
    "/{id}/cancel",
    operation_id="cancelRequest",
    openapi_extra=openapi_pipelines.REASON_BODY,
    responses=openapi.ANSWERED,
)
async def cancel(id: Id, request: Request, caller: Author, parts: AnyParts) -> Response:
    """End a request, whatever it does at the moment. What has ended stays as it ended: 409."""
    return await _simple(id, request, caller, parts, "cancel")


@router.post(
    "/{id}/pause",
    operation_id="pauseRequest",
    openapi_extra=openapi_pipelines.REASON_BODY,
    responses=openapi.ANSWERED,
)
async def pause(id: Id, request: Request, caller: Author, parts: AnyParts) -> Response:
    """Pause a request: nothing new begins, what runs comes to its end."""
    return await _simple(id, request, caller, parts, "pause")


@router.post(
    "/{id}/resume",
    operation_id="resumeRequest",
    openapi_extra=openapi_pipelines.REASON_BODY,
    responses=openapi.ANSWERED,
)
async def resume(id: Id, request: Request, caller: Author, parts: AnyParts) -> Response:
    """Go on with what was paused, or with a step that pauses before it begins."""
    return await _simple(id, request, caller, parts, "resume")


@router.post(
    "/{id}/rerun",
    operation_id="rerunRequest",
    openapi_extra=openapi_pipelines.RERUN_BODY,
    responses=openapi.ANSWERED,
)
async def rerun(id: Id, request: Request, caller: Author, parts: AnyParts) -> Response:
    """Run an ended request again as a new one, from its failed step on, or with the newest definition."""
    body = await body_of(request)
    wanted = command_bodies.rerun(body)
    asked = command(caller, parts, id, "rerun", idempotency.key_of(request))
    definition = None
    if wanted.revision == LATEST:
        definition = await _latest(parts, caller, await _row(parts, caller, id))
    asked = replace(asked, reason=wanted.reason, reuse_results=wanted.from_failed, definition=definition)
    return await answered(parts, asked, body, PIPELINE)


@router.post(
    "/{id}/amend",
    operation_id="amendRequest",
    openapi_extra=openapi_pipelines.AMEND_BODY,
    responses=openapi.ANSWERED,
)
async def amend(id: Id, request: Request, caller: Author, parts: AnyParts) -> Response:
    """Change the values before it begins, or while it waits for its first approval.

    What was agreed to is void. Results of steps that have completed stay as they are.
    """
    body = await body_of(request, AMEND_BYTES_MAX)
    values = command_bodies.values(body)
    asked = command(caller, parts, id, "amend", idempotency.key_of(request))
    row = await _row(parts, caller, id)
    definition = None
    if row.dataset_id is not None:
        definition = await accepting.definition(parts, caller, row.dataset_id, PIPELINE, row.dataset_revision)
    if definition is not None:
        values = pipeline.given_values(pipeline.parsed(definition.body), values)
    return await answered(parts, replace(asked, values=values), body, PIPELINE)


@router.post(
    "/{id}/steps/{step}/approve",
    operation_id="approveStep",
    openapi_extra=openapi_pipelines.APPROVE_BODY,
    responses=openapi.ANSWERED,
)
async def approve(id: Id, step: Step, request: Request, caller: Author, parts: AnyParts) -> Response:
    """Agree to what a step waits for. With `contentHash`: only if it is still what was looked at."""
    body = await body_of(request)
    said = command_bodies.decision(body, ("remark", "form", "contentHash"))
    asked = command(caller, parts, id, "approve", idempotency.key_of(request), step)
    asked = replace(asked, reason=said.remark, values=said.form, content_hash=said.content_hash)
    return await answered(parts, asked, body, PIPELINE)


@router.post(
    "/{id}/steps/{step}/reject",
    operation_id="rejectStep",
    openapi_extra=openapi_pipelines.REJECT_BODY,
    responses=openapi.ANSWERED,
)
async def reject(id: Id, step: Step, request: Request, caller: Author, parts: AnyParts) -> Response:
    """Refuse what a step waits for, and say why: the request fails."""
    body = await body_of(request)
    said = command_bodies.decision(body, ("reason", "contentHash"))
    asked = command(caller, parts, id, "reject", idempotency.key_of(request), step)
    asked = replace(asked, reason=said.reason, content_hash=said.content_hash)
    return await answered(parts, asked, body, PIPELINE)


@router.post(
    "/{id}/steps/{step}/remark",
    operation_id="remarkStep",
    openapi_extra=openapi_pipelines.REMARK_BODY,
    responses=openapi.ANSWERED,
)
async def remark(id: Id, step: Step, request: Request, caller: Author, parts: AnyParts) -> Response:
    """Say something about an approval without deciding it."""
    body = await body_of(request)
    said = command_bodies.decision(body, ("remark",))
    asked = command(caller, parts, id, "remark", idempotency.key_of(request), step)
    return await answered(parts, replace(asked, reason=said.remark), body, PIPELINE)


async def _simple(id: str, request: Request, caller: Caller, parts: Parts, kind: str) -> Response:
    body = await body_of(request)
    said = command_bodies.decision(body, ("reason",))
    asked = command(caller, parts, id, kind, idempotency.key_of(request))
    return await answered(parts, replace(asked, reason=said.reason), body, PIPELINE)


async def _row(parts: Parts, caller: Caller, id: str) -> Execution:
    """Raises Problem (404)."""

    def find(cursor: Any) -> Execution | None:
        return executions.find(cursor, caller.tenant, id) if EXECUTION_ID.fullmatch(id) else None

    row = await parts.pool.read(find)
    if row is None or row.job_type != PIPELINE:
        raise not_found()
    return row


async def _latest(parts: Parts, caller: Caller, row: Execution) -> Definition:
    """The pipeline as it is now. Raises Refused when it was deleted."""
    found = await accepting.definition(parts, caller, row.dataset_id or "", PIPELINE)
    if found is None:
        raise command_bodies.no_latest(row.dataset_id)
    return found
