"""/v1/pipelines/{id}/...: services, actions and hooks added to a pipeline one by one, or taken out of it.

Each change is a revision of the whole definition (S2 2.18-2.20): what GET returns is always what runs.
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from services.api import definitions, openapi, openapi_pipelines, views
from services.api.bodies import read_json_or_yaml, reply
from services.api.definitions import Conditions, Name, Revision
from services.api.keys import Caller
from services.api.kinds import PIPELINE, checked_pipeline
from services.api.parts import AnyParts, Operator, Parts
from services.api.problems import not_found
from services.api.routes.definitions import BODY_BYTES_MAX, IfMatch
from services.contracts.names import DEFINITION_ID
from services.jobs import pipeline
from services.jobs.fields import Faults, Fields

ONE = f"{PIPELINE.route}/{{id}}"
HOOK_FIELDS = ("on", "action", "when", "wait", "timeout_s", "max_attempts", "parameters")

router = APIRouter(tags=["pipelines"], responses=openapi.PROBLEMS)
Id = Annotated[str, Path(description="the pipeline's id")]
Service = Annotated[str, Path(description="the name of a service in the definition")]
Action = Annotated[str, Path(description="the name of an action of the service")]
Step = Annotated[str, Path(description="the name of a step")]
On = Annotated[str, Path(description="enter, exit, success or error")]
Number = Annotated[int, Path(ge=0, le=10_000, description="which of the hooks for that occasion, from 0")]
STORED: openapi.Responses = {200: openapi.json_of("Definition", "the revision that this made")}
Edit = Callable[[Any], Any]


@router.put(
    f"{ONE}/services/{{service}}",
    operation_id="putService",
    openapi_extra=openapi.DEFINITION_BODY,
    responses=STORED,
)
async def put_service(
    id: Id, service: Service, request: Request, caller: Operator, parts: AnyParts, if_match: IfMatch = None
) -> Response:
    """Add a service, or replace the one of that name."""
    sent = await read_json_or_yaml(request, BODY_BYTES_MAX, parts.checking.read)
    return await _change(parts, caller, id, if_match, lambda body: pipeline.with_service(body, service, sent))


@router.delete(f"{ONE}/services/{{service}}", operation_id="deleteService", responses=STORED)
async def delete_service(
    id: Id, service: Service, caller: Operator, parts: AnyParts, if_match: IfMatch = None
) -> Response:
    """Take a service out; refused while a step calls it."""
    return await _change(parts, caller, id, if_match, lambda body: pipeline.without_service(body, service))


@router.put(
    f"{ONE}/services/{{service}}/actions/{{action}}",
    operation_id="putAction",
    openapi_extra=openapi.DEFINITION_BODY,
    responses=STORED,
)
async def put_action(
    id: Id,
    service: Service,
    action: Action,
    request: Request,
    caller: Operator,
    parts: AnyParts,
    if_match: IfMatch = None,
) -> Response:
    """Add an action to a service, or replace the one of that name."""
    sent = await read_json_or_yaml(request, BODY_BYTES_MAX, parts.checking.read)
    return await _change(
        parts, caller, id, if_match, lambda body: pipeline.with_action(body, service, action, sent)
    )


@router.delete(
    f"{ONE}/services/{{service}}/actions/{{action}}", operation_id="deleteAction", responses=STORED
)
async def delete_action(
    id: Id, service: Service, action: Action, caller: Operator, parts: AnyParts, if_match: IfMatch = None
) -> Response:
    """Take an action out of a service; refused while a step calls it."""
    return await _change(
        parts, caller, id, if_match, lambda body: pipeline.without_action(body, service, action)
    )


@router.post(
    f"{ONE}/steps/{{step}}/hooks",
    operation_id="addHook",
    openapi_extra=openapi_pipelines.HOOK_BODY,
    responses=STORED,
)
async def add_hook(
    id: Id, step: Step, request: Request, caller: Operator, parts: AnyParts, if_match: IfMatch = None
) -> Response:
    """Add a hook behind those that a step has for an occasion."""
    on, hook = _hook(await read_json_or_yaml(request, BODY_BYTES_MAX, parts.checking.read))
    return await _change(parts, caller, id, if_match, lambda body: pipeline.with_hook(body, step, on, hook))


@router.delete(f"{ONE}/steps/{{step}}/hooks/{{on}}/{{number}}", operation_id="deleteHook", responses=STORED)
async def delete_hook(
    id: Id,
    step: Step,
    on: On,
    number: Number,
    caller: Operator,
    parts: AnyParts,
    if_match: IfMatch = None,
) -> Response:
    """Take one hook out of a step."""
    return await _change(
        parts, caller, id, if_match, lambda body: pipeline.without_hook(body, step, on, number)
    )


def _hook(sent: Any) -> tuple[str, Any]:
    """The occasion, and the hook as a definition writes it."""
    faults = Faults()
    fields = Fields(sent, "", HOOK_FIELDS, faults)
    on, action = fields.text("on"), fields.text("action")
    faults.raise_if_any()
    more = {name: fields.get(name) for name in HOOK_FIELDS[2:] if fields.get(name) is not None}
    return on or "", {"action": action, **more} if more else action


async def _change(parts: Parts, caller: Caller, id: str, if_match: str | None, edit: Edit) -> Response:
    if not DEFINITION_ID.fullmatch(id):
        raise not_found()
    name, conditions = Name(caller.tenant, PIPELINE.name, id), Conditions(if_match)

    def checked(body: Any) -> Any:
        edited = edit(body)
        return None if edited is None else checked_pipeline(edited, parts.checking.check)

    def change(cursor: Any) -> Revision | None:
        return definitions.change(cursor, name, checked, caller.principal, conditions)

    async with parts.checking.turn():
        row = await parts.pool.write(change)
    if row is None:
        raise not_found()
    parts.wake_relay()
    return reply(views.definition(row), headers={"ETag": row.etag})
