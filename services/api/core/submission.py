"""`POST /v1/executions`: the body as sent, checked field by field, and the `job.requested` made of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from msgspec import Struct

from services.contracts import ids
from services.contracts.callbacks import check_callback, header_fault
from services.contracts.commands import Callback, Definition, JobRequested
from services.contracts.errors import FieldError
from services.contracts.names import DEFINITION_ID
from services.jobs.fields import Faults, Fields, listed, shown
from services.jobs.pipeline.shape import PRIORITIES
from services.jobs.refused import Refused
from services.jobs.values import instant

FIELDS = (
    *("jobType", "name", "dataset", "params", "timeRange"),
    *("callback", "callbacks", "tag", "actions", "headers", "runAt", "onDuplicate"),
    *("pipeline", "revision", "values", "priority", "start"),
)
REQUEST_FIELDS = (
    *("pipeline", "revision", "values", "name", "tag", "priority", "start"),
    *("callback", "callbacks", "runAt", "onDuplicate"),
)
PIPELINE = "pipeline"
_OF_PIPELINES = ("pipeline", "revision", "values")
_OF_OTHERS = ("dataset", "params", "timeRange")
CALLBACKS_MAX = 10
ACTIONS_MAX = 20
HEADERS_MAX = 50
HEADER_CHARS_MAX = 4096
RUN_AT_AHEAD_MAX = timedelta(days=366)
ID_RULE = "1 to 100 of a-z 0-9 . _ - beginning with a letter or digit"

Seal = Callable[[str, str], str]
"""`seal(plain, field)` for the caller's tenant; the fields are those of runtime/sealing.py."""


class OnDuplicate(StrEnum):
    """What to do when the idempotency key was used before, with the same body."""

    RETURN_EXISTING = "return_existing"
    REJECT = "reject"
    RERUN_IF_FAILED = "rerun_if_failed"


class Submission(Struct, frozen=True):
    """A body whose shape is right. Header values and secrets are still in clear: it must not be stored."""

    job_type: str
    name: str
    dataset: str | None
    params: Mapping[str, Any]
    time_range: Mapping[str, Any] | None
    callbacks: tuple[Mapping[str, Any], ...]
    tag: str | None
    actions: tuple[Mapping[str, Any], ...]
    headers: Mapping[str, str]
    run_at: datetime | None = None
    on_duplicate: OnDuplicate = OnDuplicate.RETURN_EXISTING
    pipeline: str | None = None
    revision: int | None = None
    values: Mapping[str, Any] | None = None
    priority: int | None = None
    start: bool = True


@dataclass(frozen=True, slots=True)
class SealedFields:
    """The names under which values are sealed."""

    callback_header: Callable[[str], str]
    callback_secret: str
    request_header: Callable[[str], str]


def read(body: Any) -> Submission:
    """Check the shape of a body; what its job type wants is checked by `plan`. Raises Refused."""
    fields = Fields(body, "", FIELDS, Faults())
    job_type = fields.text("jobType", chars_max=100) or ""
    for name in _OF_OTHERS if job_type == PIPELINE else _OF_PIPELINES:
        if fields.get(name) is not None:
            fields.faults.add(name, f"job type {shown(job_type)} has no {name}; remove the field")
    return _read(fields, job_type)


def read_request(body: Any) -> Submission:
    """The same of a service request: a submission whose job type is pipeline. Raises Refused."""
    return _read(Fields(body, "", REQUEST_FIELDS, Faults()), PIPELINE)


def body_hash(body: Mapping[str, Any]) -> str:
    """A hash over what is asked for. How a second use of its key is answered is no part of that."""
    return ids.body_hash({key: value for key, value in body.items() if key != "onDuplicate"})


def _read(fields: Fields, job_type: str) -> Submission:
    dataset = _definition(fields, "dataset")
    pipeline = _definition(fields, PIPELINE, required=job_type == PIPELINE)
    submission = Submission(
        job_type=job_type,
        name=fields.text("name", required=False, chars_max=200) or dataset or pipeline or job_type,
        dataset=dataset,
        params=_object(fields, "params") or {},
        time_range=_object(fields, "timeRange"),
        callbacks=_callbacks(fields),
        tag=fields.text("tag", required=False, chars_max=50),
        actions=_actions(fields),
        headers=_headers(fields),
        run_at=_run_at(fields),
        on_duplicate=_on_duplicate(fields),
        pipeline=pipeline,
        revision=_revision(fields),
        values=_object(fields, "values"),
        priority=_priority(fields),
        start=_start(fields),
    )
    fields.faults.raise_if_any()
    return submission


def job_requested(
    submission: Submission,
    *,
    execution_id: str,
    tenant: str,
    principal: str,
    owner: str | None,
    definition: Definition | None,
    now: datetime,
    seal: Seal,
    names: SealedFields,
) -> JobRequested:
    """The record that asks for the execution; every secret in it is sealed. Raises Refused."""
    if submission.run_at is not None and submission.run_at > now + RUN_AT_AHEAD_MAX:
        latest = (now + RUN_AT_AHEAD_MAX).isoformat(timespec="seconds")
        message = f"expected an instant before {latest}, found {submission.run_at.isoformat()}"
        raise Refused((FieldError("runAt", message),))
    return JobRequested(
        execution_id=execution_id,
        tenant=tenant,
        requested_at=now,
        created_by=principal,
        name=submission.name,
        job_type=submission.job_type,
        origin="ad_hoc",
        tag=submission.tag,
        definition=definition,
        parameters={"params": submission.params, "time_range": submission.time_range},
        headers={name: seal(text, names.request_header(name)) for name, text in submission.headers.items()},
        actions=list(submission.actions),
        callbacks=tuple(_callback(body, seal, names) for body in submission.callbacks),
        run_at=submission.run_at,
        owner=owner,
        hold=not submission.start,
        priority=PRIORITIES["normal"] if submission.priority is None else submission.priority,
    )


def _callback(body: Mapping[str, Any], seal: Seal, names: SealedFields) -> Callback:
    secret = body.get("secret")
    return Callback(
        events=tuple(body.get("events", ())),
        url=body["url"],
        method=body.get("method", "POST"),
        headers={
            name: seal(text, names.callback_header(name)) for name, text in body.get("headers", {}).items()
        },
        secret=None if secret is None else seal(secret, names.callback_secret),
    )


def _definition(fields: Fields, kind: str, *, required: bool = False) -> str | None:
    value = fields.get(kind)
    if isinstance(value, str) and DEFINITION_ID.fullmatch(value):
        return value
    if value is not None or required:
        fields.faults.add(kind, f"expected the id of a {kind} ({ID_RULE}), found {shown(value)}")
    return None


def _revision(fields: Fields) -> int | None:
    value = fields.get("revision")
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**62):
        return value
    fields.faults.add("revision", f"expected the number of a revision, from 1, found {shown(value)}")
    return None


def _priority(fields: Fields) -> int | None:
    value = fields.get("priority")
    if value is None:
        return None
    if not isinstance(value, str) or value not in PRIORITIES:
        fields.faults.add("priority", f"unknown priority {shown(value)}; known: {listed(PRIORITIES)}")
        return None
    return PRIORITIES[value]


def _start(fields: Fields) -> bool:
    value = fields.get("start")
    if not isinstance(value, bool | None):
        fields.faults.add("start", f"expected true or false, found {shown(value)}")
    return value is not False


def _object(fields: Fields, name: str) -> Mapping[str, Any] | None:
    value = fields.get(name)
    if value is None or isinstance(value, Mapping):
        return value
    fields.faults.add(name, f"expected an object, found {shown(value)}")
    return None


def _run_at(fields: Fields) -> datetime | None:
    value = fields.get("runAt")
    found = instant(value)
    if found is None and value is not None:
        wanted = 'an instant with offset such as "2013-01-31T05:00:00Z"'
        fields.faults.add("runAt", f"expected {wanted}, found {shown(value)}")
    return found


def _on_duplicate(fields: Fields) -> OnDuplicate:
    value = fields.get("onDuplicate")
    if value is None:
        return OnDuplicate.RETURN_EXISTING
    if not isinstance(value, str) or value not in list(OnDuplicate):
        fields.faults.add("onDuplicate", f"unknown word {shown(value)}; known: {listed(OnDuplicate)}")
        return OnDuplicate.RETURN_EXISTING
    return OnDuplicate(value)


def _callbacks(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    found = [("callback", fields.get("callback"))] if fields.get("callback") is not None else []
    if found and fields.get("callbacks") is not None:
        fields.faults.add("callbacks", "expected one of callback and callbacks, found both; use callbacks")
        return ()
    found = found or fields.items("callbacks", may_be_empty=True, count_max=CALLBACKS_MAX)
    for pointer, body in found:
        for error in check_callback(body, pointer):
            fields.faults.add(error.pointer, error.message)
    return tuple(body for _, body in found)


def _actions(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    found = fields.items("actions", may_be_empty=True, count_max=ACTIONS_MAX)
    for pointer, body in found:
        if not isinstance(body, Mapping):
            fields.faults.add(pointer, f"expected an object, found {shown(body)}")
    return tuple(body for _, body in found)


def _headers(fields: Fields) -> Mapping[str, str]:
    found = _object(fields, "headers") or {}
    if len(found) > HEADERS_MAX:
        fields.faults.add("headers", f"expected at most {HEADERS_MAX} headers, found {len(found)}")
        return {}
    for name, text in found.items():
        place = f'headers["{name[:80]}"]'
        if fault := header_fault(name):
            fields.faults.add(place, fault)
        # The value is never shown: it may be a secret.
        if not isinstance(text, str) or len(text) > HEADER_CHARS_MAX or not text.isprintable():
            fields.faults.add(place, f"expected printable text of at most {HEADER_CHARS_MAX} characters")
    return found
