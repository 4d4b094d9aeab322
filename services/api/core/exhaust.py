"""S1's data-exhaust API: its envelopes, its requests as `job.requested`, its JobStatusResponse.

request   {id, ver, ts, params: {msgid}, request: {...}}
response  {id, ver, ts, params: {resmsgid, status, err, errmsg}, responseCode, result: {...}}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from services.api.core.links import Links
from services.contracts.commands import Definition, JobRequested
from services.contracts.errors import FieldError
from services.contracts.names import DEFINITION_ID
from services.contracts.status import WORDS
from services.jobs.fields import Faults, Fields, clean, listed, shown
from services.jobs.values import instant

ID = "ekstep.analytics.job.request."
CLIENTS_ID = "ekstep.analytics.data.out"
"""What Sunbird's own clients send as `id` of every message."""
IGNORED_MAX = 20
VERSION = "1.0"
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", re.ASCII)
TAG_RULE = "1 to 50 of A-Z a-z 0-9 . _ - beginning with a letter or digit"
CHANNEL = re.compile(r"[!-~](?:[ -~]{0,48}[!-~])?", re.ASCII)
LISTED_MAX = 200
FILTERS = ("jobId", "status", "requestedDate", "channel")
STATUSES = tuple(sorted({words.exhaust for words in WORDS.values()}))
_MSGID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
ENVELOPE = ("id", "ver", "ts", "params", "request")
# Fields that narrow or protect a report in other forms of this API: without them it would give too much.
_NEVER_IGNORED = frozenset(
    (
        "filter",
        "filters",
        "batchFilters",
        "contentFilters",
        "batches",
        "columns",
        "datasetConfig",
        "encryptionKey",
    )
)
_CONFIG = ("batchFilters", "contentFilters", "reportPath", "batches", "columns", "filters")


@dataclass(frozen=True, slots=True)
class Asked:
    """A submit whose shape is right; what the report wants is checked by its plan.

    `ignored` are the fields that nobody knows, by their places.
    """

    msgid: str
    tag: str
    job_id: str
    config: Mapping[str, Any]
    output_format: Any
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; None matches everything."""

    msgid: str
    job_id: str | None
    status: str | None
    requested_date: date | None
    channel: str | None
    limit: int
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """A row of job_request, in S1's terms but for the steps and the state."""

    request_id: str
    tag: str
    status: str
    request_data: Any
    batch_filters: Any
    dt_job_submitted: datetime
    dt_job_completed: datetime | None
    execution_time: int | None
    err_message: str | None
    updated_at: datetime
    steps: Any


@dataclass(frozen=True, slots=True)
class Download:
    """One file of a job, to be linked."""

    tenant: str
    name: str
    generation: int


def msgid_of(body: Any) -> str | None:
    """The message's id, if it has a good one: answers name it, also those that say what is wrong."""
    params = body.get("params") if isinstance(body, Mapping) else None
    msgid = params.get("msgid") if isinstance(params, Mapping) else None
    return msgid if isinstance(msgid, str) and _MSGID.fullmatch(msgid) else None


def read_submit(body: Any) -> Asked:
    """Raises Refused with every fault of the envelope and of what stands directly in `request`."""
    faults = Faults()
    msgid, request, ignored = _envelope(
        body, "submit", ("tag", "jobId", "jobConfig", "output_format"), faults
    )
    tag, job_id = request.get("tag"), request.get("jobId")
    if not isinstance(tag, str) or not TAG.fullmatch(tag):
        faults.add("request.tag", f"expected {TAG_RULE}, found {shown(tag)}")
    if not isinstance(job_id, str) or not DEFINITION_ID.fullmatch(job_id):
        faults.add("request.jobId", f"expected the id of a report, found {shown(job_id)}")
    config = request.object("jobConfig", _CONFIG)
    given = {name: config.get(name) for name in _CONFIG if config.get(name) is not None}
    faults.raise_if_any()
    return Asked(msgid.lower(), str(tag), str(job_id), given, request.get("output_format"), ignored)


def read_search(body: Any) -> Search:
    """Raises Refused with every fault."""
    faults = Faults()
    msgid, request, ignored = _envelope(body, "search", ("filters", "limit"), faults)
    filters = request.object("filters", FILTERS)
    status, text, limit = filters.get("status"), filters.get("requestedDate"), request.get("limit")
    if status is not None and status not in STATUSES:
        faults.add("request.filters.status", f"expected one of {listed(STATUSES)}, found {shown(status)}")
    day = _date(text)
    if text is not None and day is None:
        wanted = 'a date (UTC) such as "2016-12-07"'
        faults.add("request.filters.requestedDate", f"expected {wanted}, found {shown(text)}")
    limit = LISTED_MAX if limit is None else limit
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LISTED_MAX:
        wanted = f"a whole number from 1 to {LISTED_MAX}"
        faults.add("request.limit", f"expected {wanted}, found {shown(limit)}")
    job_id = filters.text("jobId", required=False, chars_max=100)
    channel = filters.text("channel", required=False, chars_max=50)
    faults.raise_if_any()
    return Search(msgid, job_id, status, day, channel, limit, ignored)


def _date(text: Any) -> date | None:
    try:
        return date.fromisoformat(text) if isinstance(text, str) and len(text) == 10 else None
    except ValueError:
        return None


def _envelope(
    body: Any, name: str, known: tuple[str, ...], faults: Faults
) -> tuple[str, Fields, tuple[str, ...]]:
    """The msgid, the request, and the fields that are ignored, as S1's original ignores them."""
    outer = Fields(body, "", (*ENVELOPE, *_unknown(body, ENVELOPE)), faults)
    for field, expected in (("id", (ID + name, CLIENTS_ID)), ("ver", (VERSION,))):
        if outer.get(field) not in expected:
            faults.add(field, f'expected "{expected[0]}", found {shown(outer.get(field))}')
    if instant(outer.get("ts")) is None:
        wanted = 'an instant with offset such as "2016-12-07T12:40:40+05:30"'
        faults.add("ts", f"expected {wanted}, found {shown(outer.get('ts'))}")
    params, request = outer.get("params"), outer.get("request")
    msgid = outer.object("params", ("msgid", *_unknown(params, ("msgid",)))).get("msgid")
    if msgid_of(body) is None:
        faults.add("params.msgid", f"expected a UUID, one for each request, found {shown(msgid)}")
    if request is None:
        faults.add("request", "expected an object, found nothing")
    harmless = [key for key in _unknown(request, known) if key not in _NEVER_IGNORED]
    ignored = [
        *_unknown(body, ENVELOPE),
        *(f"params.{key}" for key in _unknown(params, ("msgid",))),
        *(f"request.{key}" for key in harmless),
    ]
    places = tuple(clean(place) for place in ignored[:IGNORED_MAX])
    return str(msgid), outer.object("request", (*known, *harmless)), places


def _unknown(body: Any, known: tuple[str, ...]) -> list[str]:
    return [key for key in body if key not in known] if isinstance(body, Mapping) else []


def job_requested(
    asked: Asked,
    *,
    execution_id: str,
    tenant: str,
    principal: str,
    owner: str | None,
    channel: str | None,
    definition: Definition,
    now: datetime,
) -> JobRequested:
    """The record that asks for the report: an export of the dataset that its jobId names."""
    params = dict(asked.config)
    if asked.output_format is not None:
        params["format"] = asked.output_format
    return JobRequested(
        execution_id=execution_id,
        tenant=tenant,
        requested_at=now,
        created_by=principal,
        name=asked.job_id,
        job_type="export",
        origin="ad_hoc",
        tag=asked.tag,
        definition=definition,
        parameters={"params": params, "time_range": None},
        requested_channel=channel,
        owner=owner,
    )


def as_sent(errors: Sequence[FieldError]) -> tuple[FieldError, ...]:
    """Faults that a plan found, at the places where S1's caller wrote the fields."""

    def place(pointer: str) -> str:
        if pointer == "params.format":
            return "request.output_format"
        if pointer == "dataset":
            return "request.jobId"
        head, _, rest = pointer.partition(".")
        return f"request.jobConfig.{rest}" if head == "params" and rest else pointer

    return tuple(FieldError(place(error.pointer), error.message) for error in errors)


def request_data(request: JobRequested) -> dict[str, Any]:
    """What was asked for, as the column `request_data` keeps it (S1 1.14): never anything sealed."""
    definition = request.definition
    parameters = request.parameters if isinstance(request.parameters, dict) else {}
    params = parameters.get("params")
    config = dict(params) if isinstance(params, dict) else {}
    output_format = config.pop("format", None)
    job_id = definition.id if definition else request.definition_id or request.job_type
    return {"jobId": job_id, "jobConfig": config, "output_format": output_format}


def job_status(job: Job, files: Sequence[Download], links: Links, public_url: str, now: datetime) -> Any:
    """S1's JobStatusResponse (1.14). `last_updated` and `job_stats` are in seconds, `expiresAt` in ms."""
    now_s = int(now.timestamp())
    signed = [links.link(file.tenant, job.request_id, file.name, now_s, file.generation) for file in files]
    asked = job.request_data or {}
    config = dict(asked.get("jobConfig", {}))
    as_asked = config.pop("batchFilters", None)
    batch_filters = job.batch_filters or as_asked
    answer = {
        "request_id": job.request_id,
        "tag": job.tag,
        "status": job.status,
        "last_updated": int(job.updated_at.timestamp()),
        "request": {
            "jobId": asked.get("jobId"),
            "batchFilters": batch_filters,
            **config,
            "output_format": asked.get("output_format"),
        },
        "job_stats": _stats(job),
        "downloadURLs": [public_url + path for path, _ in signed],
        "expiresAt": signed[0][1] * 1000 if signed else None,
        # Like S1's sample: 0 for what succeeded at once.
        "attempts": sum(max(step["attempt"] - 1, 0) for step in job.steps),
    }
    return answer if job.err_message is None else {**answer, "err_message": job.err_message}


def _stats(job: Job) -> dict[str, int]:
    stats = {"dt_job_submitted": _epoch_s(job.dt_job_submitted)}
    if job.dt_job_completed is not None:
        stats["dt_job_completed"] = _epoch_s(job.dt_job_completed)
    if job.execution_time is not None:
        stats["execution_time"] = job.execution_time
    return stats


def _epoch_s(utc: datetime) -> int:
    return int(utc.replace(tzinfo=UTC).timestamp())


def response(
    name: str, resmsgid: str, now: datetime, result: Any, ignored: Sequence[str] = ()
) -> dict[str, Any]:
    """A successful answer; `name` is submit, info, list or search. It names the fields that were ignored."""
    params: dict[str, Any] = {"resmsgid": resmsgid, "status": "successful", "err": None, "errmsg": None}
    if ignored:
        params["ignored"] = list(ignored)
    return _response(name, now, params, "OK", result)


def failure(
    name: str,
    resmsgid: str,
    now: datetime,
    status: int,
    kind: str,
    detail: str,
    errors: Sequence[FieldError],
) -> dict[str, Any]:
    """The same envelope for an error with this HTTP status; `result` lists each fault with its place."""
    err = kind.upper().replace("-", "_")
    params = {"resmsgid": resmsgid, "status": "failed", "err": err, "errmsg": detail}
    result = {"errors": [{"pointer": e.pointer, "message": e.message} for e in errors]} if errors else {}
    return _response(name, now, params, response_code(status), result)


def response_code(status: int) -> str:
    """S1's word for an HTTP status."""
    known = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "RESOURCE_NOT_FOUND", 408: "REQUEST_TIMEOUT"}
    return known.get(status, "SERVER_ERROR" if status >= 500 else "CLIENT_ERROR")


def _response(name: str, now: datetime, params: Any, code: str, result: Any) -> dict[str, Any]:
    return {
        "id": ID + name,
        "ver": VERSION,
        "ts": now.astimezone(UTC).isoformat(timespec="milliseconds"),
        "params": params,
        "responseCode": code,
        "result": result,
    }
