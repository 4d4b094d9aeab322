"""The published description of bodies and answers (OpenAPI 3.1), where FastAPI cannot read it from types:
bodies are read raw, and answers are made from rows."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from services.api import openapi_exhaust, openapi_pipelines, openapi_problems
from services.api.core.submission import FIELDS, OnDuplicate
from services.api.keys import Role
from services.api.problems import KINDS, MEDIA_TYPE, TYPE_PREFIX
from services.contracts.callbacks import METHODS
from services.contracts.status import Status, StepStatus
from services.jobs.export import PARAMS
from services.jobs.filters import FILTERS_MAX, IN_VALUES_MAX, OPERATORS

Schema = Mapping[str, Any]


def _object(properties: Mapping[str, Any], required: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required), **more}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT = {"type": "string"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_INSTANT = {"type": "string", "format": "date-time"}
_MAYBE_INSTANT = {"type": ["string", "null"], "format": "date-time"}
_ANY = {"type": "object"}
_COUNTS = {"files": _COUNT, "rows": _COUNT, "bytes": _COUNT}

_CALLBACK = _object(
    {
        "events": _list(_TEXT),
        "url": {
            "type": "string",
            "format": "uri",
            "description": "kept and shown as sent: credentials belong into headers, which are sealed",
        },
        "method": {"enum": list(METHODS)},
        "headers": {"type": "object", "additionalProperties": _TEXT, "description": "sealed before storing"},
        "secret": {"type": "string", "description": "whsec_...; signs by Standard Webhooks; sealed"},
    },
    ("url",),
    additionalProperties=False,
)
_FILTER = _object(
    {
        "column": {"type": "string", "description": "one that the dataset lists under `filters`"},
        "op": {
            "enum": sorted({op for operators in OPERATORS.values() for op in operators}),
            "description": "boolean columns know no order; rows whose column is NULL pass `is_null` alone",
        },
        "value": {
            "description": f"of the column's type; for `in` a list of 1 to {IN_VALUES_MAX};"
            " for `is_null` and `is_not_null` none",
            "anyOf": [{"type": ["string", "number", "boolean", "null"]}, _list({})],
        },
    },
    ("column", "op"),
    additionalProperties=False,
)
_EXPORT_PARAMS = _object(
    {
        "columns": {**_list(_TEXT), "description": "in this order; default: the dataset's"},
        "filters": {**_list(_ref("Filter")), "maxItems": FILTERS_MAX, "description": "all must hold"},
        "batches": {**_list(_TEXT), "description": "one file each; default: those of the dataset"},
        "format": {"type": "string", "description": "one that the dataset allows; default: its first"},
        "batchFilters": {**_list(_TEXT), "description": "batches or channels, as in the data-exhaust API"},
        "contentFilters": {"type": "object", "description": "`request`, as in the data-exhaust API"},
        "reportPath": _TEXT,
    },
    description="parameters of the job type `export`",
    additionalProperties=False,
)
assert set(_EXPORT_PARAMS["properties"]) == set(PARAMS)
_SUBMISSION = _object(
    {
        "jobType": {"type": "string", "examples": ["export"]},
        "name": _TEXT,
        "dataset": _TEXT,
        "params": {
            "anyOf": [_ref("ExportParams"), {"type": "object", "description": "as the job type has them"}]
        },
        "timeRange": _object({"from": _INSTANT, "to": _INSTANT}),
        "callback": _ref("Callback"),
        "callbacks": _list(_ref("Callback")),
        "tag": _TEXT,
        "actions": {**_list(_ANY), "description": "kept as sent: put no secret here"},
        "headers": {"type": "object", "additionalProperties": _TEXT, "description": "sealed before storing"},
        "runAt": {**_INSTANT, "description": "accepted now, begun then; one that has passed begins at once"},
        "onDuplicate": {
            "enum": [word.value for word in OnDuplicate],
            "description": "the answer when the Idempotency-Key was used before, with this body",
        },
        **openapi_pipelines.OF_PIPELINES,
        **openapi_pipelines.OF_ALL,
    },
    ("jobType",),
    additionalProperties=False,
)
assert set(_SUBMISSION["properties"]) == set(FIELDS)

_SUMMARY = {
    "execution_id": _TEXT,
    "name": _MAYBE_TEXT,
    "job_type": _MAYBE_TEXT,
    "tag": _MAYBE_TEXT,
    "status": {"enum": [status.value for status in Status]},
    "words": _object({"exhaust": _TEXT, "reporting": _TEXT, "request": _TEXT}),
    "sequence": {**_COUNT, "description": "of the newest event in this answer"},
    "created_by": _MAYBE_TEXT,
    "submitted_at": _INSTANT,
    "started_at": _MAYBE_INSTANT,
    "finished_at": _MAYBE_INSTANT,
    "links": _object({"self": _TEXT, "events": _TEXT}),
}
_STEP = _object(
    {
        "name": _TEXT,
        "kind": _TEXT,
        "status": {"enum": [status.value for status in StepStatus]},
        "history": _list(_object({"status": _TEXT, "at": _INSTANT, "attempt": _COUNT})),
        "attempt": _COUNT,
        "worker": _MAYBE_TEXT,
        **_COUNTS,
        "detail": _MAYBE_TEXT,
        "reason": _MAYBE_TEXT,
        "message": _MAYBE_TEXT,
        "retry_at": _MAYBE_INSTANT,
        "waits": {"type": ["object", "null"], "description": "what it waits for, without a worker"},
    }
)
_FILE = _object(
    {
        "name": _TEXT,
        "batch": _MAYBE_TEXT,
        "rows": _COUNT,
        "bytes": _COUNT,
        "sha256": _TEXT,
        "content_type": _TEXT,
        "url": {"type": "string", "format": "uri"},
        "expires_at": _INSTANT,
    }
)
_REVISION = {
    "id": _TEXT,
    "revision": {"type": "integer", "minimum": 1},
    "etag": _TEXT,
    "changed_at": _INSTANT,
    "changed_by": _TEXT,
}
_FIELD_ERROR = _object({"pointer": _TEXT, "message": _TEXT}, ("pointer", "message"))


def _page(name: str) -> dict[str, Any]:
    return _object({"items": _list(_ref(name)), "next": _MAYBE_TEXT}, ("items", "next"))


COMMANDS: Mapping[str, str] = {
    "amend": "execution.amended",
    "approve": "approval.decided",
    "cancel": "execution.cancelled",
    "pause": "execution.waiting",
    "reject": "approval.decided",
    "remark": "approval.remarked",
    "rerun": "execution.rerun",
    "resume": "execution.resumed",
    "start": "execution.started",
}
"""Kind of a command -> type of the event by which it is done."""

SCHEMAS: Mapping[str, Schema] = {
    "Accepted": _object(
        {"execution_id": _TEXT, "status": {"const": "pending"}, "links": _SUMMARY["links"]},
        ("execution_id", "status", "links"),
    ),
    "Callback": _CALLBACK,
    "Command": _object(
        {
            "command_id": _TEXT,
            "execution_id": _TEXT,
            "kind": {"enum": list(COMMANDS)},
            "answer": {
                "enum": [*dict.fromkeys(COMMANDS.values()), None],
                "description": "the event that answered it; null = stored, not answered yet",
            },
            "rerun_id": {**_MAYBE_TEXT, "description": "the execution that repeats this one"},
            "links": _SUMMARY["links"],
        }
    ),
    "Definition": _object({**_REVISION, "definition": _ANY}),
    "DefinitionPage": _page("Definition"),
    "ExportParams": _EXPORT_PARAMS,
    "Filter": _FILTER,
    "EventPage": _object({"events": _list(_ANY), "last": _COUNT}, ("events", "last")),
    "Execution": _object(
        {
            **_SUMMARY,
            "dataset": {"type": ["object", "null"]},
            "pipeline": {"type": ["object", "null"]},
            "waiting": openapi_pipelines.WAITING,
            "approvals": _list(openapi_pipelines.APPROVAL_WORD),
            "hooks": _list(openapi_pipelines.HOOK_RUN),
            "steps": _list(_STEP),
            "progress": _object({"steps_total": _COUNT, "steps_completed": _COUNT, **_COUNTS}),
            "files": _list(_FILE),
            "errors": _list(_FIELD_ERROR),
            "failure": {"type": ["object", "null"]},
            "rerun_of": {**_MAYBE_TEXT, "description": "the execution that this one repeats"},
            "reruns": {**_list(_TEXT), "description": "the executions that repeat this one, oldest first"},
            "incomplete": {
                "type": "boolean",
                "description": "an event could not be read; see the dead letters",
            },
        }
    ),
    "ExecutionPage": _page("ExecutionSummary"),
    "ExecutionSummary": _object(_SUMMARY),
    "Me": _object(
        {
            "tenant": _TEXT,
            "key_id": {"type": "string", "description": "the part of the key that is no secret"},
            "principal": {"type": "string", "description": "the name of whoever the key was made for"},
            "owner": {**_MAYBE_TEXT, "description": "the person behind the key of a service or bot"},
            "role": {"enum": [role.value for role in Role]},
            "groups": {**_list(_TEXT), "description": "in whose name the caller approves"},
        },
        ("tenant", "key_id", "principal", "owner", "role", "groups"),
    ),
    "Problem": _object(
        {
            "type": {"enum": [TYPE_PREFIX + kind for kind in KINDS]},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "errors": _list(_FIELD_ERROR),
        },
        ("type", "title", "status", "detail"),
    ),
    "Revision": _object({**_REVISION, "deleted": {"type": "boolean"}}),
    "RevisionPage": _page("Revision"),
    "Submission": _SUBMISSION,
    **openapi_exhaust.SCHEMAS,
    **openapi_pipelines.SCHEMAS,
}

Responses = dict[int | str, dict[str, Any]]


def json_of(schema: str, description: str) -> dict[str, Any]:
    """One JSON answer."""
    return {"description": description, "content": {"application/json": {"schema": _ref(schema)}}}


def json_or_stream(schema: str, description: str) -> dict[str, Any]:
    """One JSON answer, or Server-Sent Events, by the Accept header."""
    answer = json_of(schema, description)
    answer["content"]["text/event-stream"] = {"schema": _TEXT}
    return answer


def document(name: str, media_type: str = "application/json") -> dict[str, Any]:
    """A description of ours, by somebody else's standard."""
    return {"description": f"the {name} document", "content": {media_type: {}}}


def last_event_id(pattern: str) -> dict[str, Any]:
    """The header with which a client comes back to a stream."""
    header = {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "pattern": pattern},
        "description": "Of a stream that was cut off: the id of the last message that arrived.",
    }
    return {"parameters": [header]}


def _body(schema: Any, *media_types: str) -> dict[str, Any]:
    content = {media_type: {"schema": schema} for media_type in media_types}
    return {"requestBody": {"required": True, "content": content}}


_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Same key, same body: the same wish, done once. Same key, other body: 409.",
}
_REASON = {"type": "string", "maxLength": 500, "description": "kept in the history"}


def _command_body(properties: Mapping[str, Any]) -> dict[str, Any]:
    described = _body(_object(properties, additionalProperties=False), "application/json")
    described["requestBody"]["required"] = False
    return {**described, "parameters": [_IDEMPOTENCY_KEY]}


SUBMIT_BODY = {
    **_body(_ref("Submission"), "application/json"),
    "parameters": [
        _IDEMPOTENCY_KEY,
        {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "examples": ["wait=30"]},
            "description": "RFC 7240: wait that many seconds (at most 30) for the end.",
        },
    ],
}
CANCEL_BODY = _command_body({"reason": _REASON})
RERUN_BODY = _command_body(
    {
        "reason": _REASON,
        "reuseResults": {"type": "boolean", "description": "take over steps that have completed"},
    }
)
ANSWERED: Responses = {
    200: json_of("Command", "done"),
    202: json_of("Command", "stored: it will be answered by an event"),
}
DEFINITION_BODY = _body(_ANY, "application/yaml", "application/json")
PROBLEMS: Responses = {
    "default": {"description": "RFC 9457", "content": {MEDIA_TYPE: {"schema": _ref("Problem")}}}
}
LOG: Responses = {
    200: {
        "description": "the log, or its stream",
        "content": {media_type: {"schema": _TEXT} for media_type in ("text/plain", "text/event-stream")},
    },
    204: {"description": "the client that comes back has heard the end"},
}
_FILE_HEADERS = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "examples": [example]},
        "description": description,
    }
    for name, example, description in (
        ("If-None-Match", '"<etag>"', "304 when the file is still this one"),
        ("Range", "bytes=0-1023", "RFC 9110: one range of bytes"),
        ("If-Range", '"<etag>"', "the range only of this very file, else all of it"),
    )
]
_FILE_FOUND: Responses = {
    200: {"description": "the file", "content": {"*/*": {}}},
    304: {"description": "the file that If-None-Match names"},
    404: {"description": "no such file, or the link is altered or expired"},
}
FILE: dict[str, Any] = {
    "responses": {
        **_FILE_FOUND,
        206: {"description": "the one range of bytes that was asked for", "content": {"*/*": {}}},
        416: {"description": "the range lies behind the end of the file"},
    },
    "openapi_extra": {"parameters": _FILE_HEADERS},
}
FILE_HEAD: dict[str, Any] = {
    "responses": _FILE_FOUND,
    "openapi_extra": {"parameters": _FILE_HEADERS[:1]},  # a range of HEAD means nothing
}


def install(app: FastAPI) -> None:
    """Add our components to what FastAPI writes, and take its own validation error out."""
    written = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = written()
            document.setdefault("components", {}).setdefault("schemas", {}).update(SCHEMAS)
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    _summarise(operation)
                    openapi_problems.spell_out(operation, PROBLEMS["default"]["content"])
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _summarise(operation: dict[str, Any]) -> None:
    """The first sentence of a docstring is the summary, for which FastAPI takes the function's name."""
    if told := operation.pop("description", ""):
        operation["summary"], *rest = re.split(r"[.]\s+", told, maxsplit=1)
        if rest:
            operation["description"] = rest[0]
    operation["summary"] = operation["summary"].removesuffix(".")
