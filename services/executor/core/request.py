"""What a `job.requested` record must be before an execution may come of it."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import structs
from msgspec.structs import replace

from services import jobs
from services.contracts import ids, names
from services.contracts.callbacks import check_callback
from services.contracts.commands import (
    Definition,
    DefinitionState,
    ExecutionCommand,
    JobRequested,
    definition_key,
)
from services.contracts.errors import FieldError
from services.contracts.events import PlannedStep
from services.executor.core import form, limits
from services.executor.core.context import values
from services.jobs import pipeline
from services.jobs.refused import Refused

TOO_OLD = timedelta(days=30)
TOO_FAR = timedelta(days=1)
_USUAL_PRIORITY = 1
DEFINITION_KINDS = frozenset({"dataset", "pipeline"})

# Who sends a request and when does not make it another request.
_NOT_HASHED = frozenset({"origin", "requested_at", "planned_at"})
# Fields that came later than the first hashes: unless they are used, the hash is what it was.
_LATER_FIELDS = (
    *("run_at", "rerun_of", "reuse_results", "requested_channel"),
    *("hold", "owner", "priority", "timeout_s", "limits"),
)
# What answers to a command, and readers' tables, repeat of it.
_TOLD = ("kind", "reason", "step", "content_hash", "owner", "role")
_UNUSED = {field.name: field.default for field in structs.fields(JobRequested) if field.name in _LATER_FIELDS}


class NameRefused(Exception):
    """A name has a form that no name of ours has."""


def request_hash(request: JobRequested) -> str:
    """A hash over what is asked for; the same id with another hash is a conflict."""
    body: dict[str, Any] = msgspec.to_builtins(request)
    asked = {
        name: value
        for name, value in body.items()
        if name not in _NOT_HASHED and (name not in _UNUSED or value != _UNUSED[name])
    }
    return ids.body_hash(asked)


def check_names(request: JobRequested) -> None:
    """Names of another form than api takes are refused before they become keys. Raises NameRefused."""
    _check("tenant", request.tenant, names.TENANT)
    _check("created_by", request.created_by, names.PRINCIPAL)
    if request.definition_id is not None:
        _check("definition_id", request.definition_id, names.DEFINITION_ID)
    if request.rerun_of is not None:
        _check("rerun_of", request.rerun_of, ids.EXECUTION_ID)
    if request.origin not in names.ORIGINS:
        raise NameRefused(f"origin: expected one of {', '.join(sorted(names.ORIGINS))}")


def check_command(command: ExecutionCommand) -> None:
    """Likewise for a command, so that its answer can be told. Raises NameRefused."""
    _check("command_id", command.command_id, ids.EXECUTION_ID)
    _check("tenant", command.tenant, names.TENANT)
    _check("requested_by", command.requested_by, names.PRINCIPAL)
    for field in _TOLD:
        if "\0" in (getattr(command, field) or ""):
            raise NameRefused(f"{field}: expected text without NUL, which no database takes")
    if command.kind == "rerun" or command.rerun_id is not None:
        _check("rerun_id", command.rerun_id or "", ids.EXECUTION_ID)


def check_definition(definition: DefinitionState) -> None:
    """Likewise for a definition. Raises NameRefused."""
    if definition.kind not in DEFINITION_KINDS:
        raise NameRefused(f"kind: expected one of {', '.join(sorted(DEFINITION_KINDS))}")
    _check("tenant", definition.tenant, names.TENANT)
    _check("id", definition.id, names.DEFINITION_ID)


def _check(field: str, value: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(value):
        raise NameRefused(f"{field}: expected the form {form.pattern}, found {value[:80]!r}")


def age_fault(request: JobRequested, now: datetime) -> tuple[str, str] | None:
    """Why the instant of the request is not believable, as reason and message."""
    if request.requested_at < now - TOO_OLD:
        return "too_old", f"requested_at: expected within {TOO_OLD.days} days, found {request.requested_at}"
    if request.requested_at > now + TOO_FAR:
        return "bad_time", f"requested_at: expected at most a day ahead, found {request.requested_at}"
    return None


def unsealed_fields(request: JobRequested) -> list[str]:
    """Sealed fields that hold plain text: their names only."""
    named = [(f'headers["{name}"]', value) for name, value in request.headers.items()]
    for index, callback in enumerate(request.callbacks):
        named += [(f'callbacks[{index}].headers["{name}"]', text) for name, text in callback.headers.items()]
        if callback.secret is not None:
            named.append((f"callbacks[{index}].secret", callback.secret))
    return [name for name, value in named if not names.is_sealed(value)]


def without_secrets(request: JobRequested) -> JobRequested:
    """The request with every sealed field cut, fit for a dead letter.

    Cut, not removed: sent again it is refused again, and no callback goes out unsigned that was to be signed.
    """
    callbacks = tuple(
        replace(
            callback,
            headers=dict.fromkeys(callback.headers, ""),
            secret=None if callback.secret is None else "",
        )
        for callback in request.callbacks
    )
    return replace(request, headers=dict.fromkeys(request.headers, ""), callbacks=callbacks)


def named_definition(request: JobRequested) -> str | None:
    """The key of the definition that the request names but does not carry."""
    if request.definition is not None or request.definition_id is None:
        return None
    return definition_key(definition_kind(request), request.tenant, request.definition_id)


def definition_kind(request: JobRequested) -> str:
    """What the job type's definitions are: a pipeline runs one, everything else reads a dataset."""
    return "pipeline" if request.job_type == "pipeline" else "dataset"


def with_definition(request: JobRequested, found: DefinitionState) -> JobRequested:
    """The request pinned to the revision that is current now."""
    return pinned(request, Definition(kind=found.kind, id=found.id, revision=found.revision, body=found.body))


def pinned(request: JobRequested, found: Definition) -> JobRequested:
    """The request with this revision, and with what a pipeline adds to a request that does not say it."""
    resolved = replace(request, definition=found)
    if found.kind != "pipeline" or not isinstance(request.parameters, dict):
        return resolved
    try:
        known = pipeline.parsed(found.body)
        given = pipeline.given_values(known, request.parameters.get("values") or {})
        limits = request.limits or pipeline.limits_of(known, found.id, given) or None
    except Refused:
        return resolved  # the plan says what is wrong with it
    return replace(
        resolved,
        parameters={**request.parameters, "values": given},
        priority=known.priority if request.priority == _USUAL_PRIORITY else request.priority,
        timeout_s=known.timeout_s if request.timeout_s is None else request.timeout_s,
        limits=limits,
    )


def plan(request: JobRequested) -> tuple[PlannedStep, ...]:
    """The steps of the request. Raises Refused with everything that is wrong with it."""
    errors = (*_callback_errors(request), *_reuse_errors(request), *limits.faults(request))
    try:
        steps = jobs.plan(request)
    except Refused as refused:
        raise Refused(errors + refused.errors) from refused
    if errors:
        raise Refused(errors)
    return steps


def original(request: JobRequested) -> str | None:
    """The execution that the request repeats, if its results count, or who had a hand in its values."""
    counts = request.reuse_results or request.job_type == form.KIND
    return request.rerun_of if counts else None


def reuse_faults(wanted: JobRequested, original: JobRequested | None) -> tuple[FieldError, ...]:
    """Why results of the original are none of this request's: they came of other values.

    A newer form may have added values by its defaults.
    """
    if not wanted.reuse_results or original is None or {wanted.job_type, original.job_type} != {form.KIND}:
        return ()
    try:
        expected = form.completed(replace(wanted, parameters=original.parameters))
    except Refused:
        expected = original
    if values(form.completed(wanted).parameters) == values(expected.parameters):
        return ()
    message = "expected those of the execution in rerun_of, whose results are reused; found others"
    return (FieldError("values", message),)


def _reuse_errors(request: JobRequested) -> Iterator[FieldError]:
    if request.reuse_results and request.rerun_of is None:
        yield FieldError("rerun_of", "expected an execution whose results are reused, found nothing")
    if request.reuse_results and request.hold:
        yield FieldError("hold", "expected none where results are reused: they would be taken over at once")
    if request.reuse_results and request.run_at is not None:
        yield FieldError("run_at", "expected none where results are reused: they would be taken over at once")


def _callback_errors(request: JobRequested) -> Iterator[FieldError]:
    for index, callback in enumerate(request.callbacks):
        # The sealed values were checked before they were sealed; what stands in the clear is checked here.
        clear = {"events": list(callback.events), "url": callback.url, "method": callback.method}
        yield from check_callback(clear, f"callbacks[{index}]")
