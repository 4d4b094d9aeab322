"""The published description of pipelines and service requests: bodies and answers."""

from collections.abc import Mapping
from typing import Any

from services.api.core.command_bodies import REVISIONS, TEXT_CHARS_MAX
from services.api.core.service_requests import STATUSES
from services.api.core.submission import REQUEST_FIELDS, OnDuplicate
from services.contracts.status import StepStatus
from services.jobs.pipeline.shape import PRIORITIES

_TEXT = {"type": "string"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
_INSTANT = {"type": "string", "format": "date-time"}
_MAYBE_INSTANT = {"type": ["string", "null"], "format": "date-time"}
_ANY = {"type": "object"}
_MAYBE_ANY = {"type": ["object", "null"]}
_REASON = {"type": "string", "maxLength": TEXT_CHARS_MAX, "description": "kept in the history"}
_HASH = {"type": "string", "description": "content_hash of what was looked at: another one is refused"}


def _object(properties: Mapping[str, Any], required: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required), **more}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _page(name: str) -> dict[str, Any]:
    return _object({"items": _list(_ref(name)), "next": _MAYBE_TEXT}, ("items", "next"))


_HOOK = _object(
    {
        "on": {"enum": ["enter", "exit", "success", "error"]},
        "action": {"type": "string", "examples": ["Logger:start", "std:goto(task2)", "std:no-op"]},
        "when": {"type": "string", "description": "a condition, for example $.execution.error = null"},
        "wait": {"type": "boolean", "description": "awaited: its error fails the step; default: it is cast"},
        "timeout_s": {"type": "integer", "minimum": 1},
        "max_attempts": {"type": "integer", "minimum": 1},
        "parameters": {"type": "object", "description": "what this hook adds to the action's own"},
    },
    ("on", "action"),
    additionalProperties=False,
)
OF_PIPELINES: Mapping[str, Any] = {
    "pipeline": {"type": "string", "description": "the id of a pipeline"},
    "revision": {"type": "integer", "minimum": 1, "description": "default: the current one"},
    "values": {"type": "object", "description": "the values of the pipeline's form"},
}
OF_ALL: Mapping[str, Any] = {
    "priority": {"enum": [*PRIORITIES], "description": "default: the pipeline's, else normal"},
    "start": {"type": "boolean", "description": "false: created, and begun by the command start"},
}
_REQUEST = _object(
    {
        **OF_PIPELINES,
        **OF_ALL,
        "name": _TEXT,
        "tag": _TEXT,
        "callback": _ref("Callback"),
        "callbacks": _list(_ref("Callback")),
        "runAt": {**_INSTANT, "description": "accepted now, begun then"},
        "onDuplicate": {"enum": [word.value for word in OnDuplicate]},
    },
    ("pipeline",),
    additionalProperties=False,
)
assert set(_REQUEST["properties"]) == set(REQUEST_FIELDS)

_LINKS = _object({"self": _TEXT, "execution": _TEXT, "events": _TEXT})
_PINNED = _object({"id": _TEXT, "revision": {"type": "integer"}})
_STATUS = {"enum": [*STATUSES], "description": "S3's words"}
WAITING = {
    **_object(
        {
            "reason": _MAYBE_TEXT,
            "step": _MAYBE_TEXT,
            "until": _MAYBE_INSTANT,
            "approval": _MAYBE_ANY,
        }
    ),
    "type": ["object", "null"],
    "description": "what it waits for: approval, paused, pause_before, wait_before or wait_after; before it"
    " begins: start (the command) or run_at. No event tells that it waits for a limit, room or a worker",
}
APPROVAL_WORD = _object(
    {
        "step": _TEXT,
        "decision": {"enum": ["approved", "rejected", "expired", "remarked"]},
        "by": _MAYBE_TEXT,
        "at": _INSTANT,
        "owner": _MAYBE_TEXT,
        "remark": _MAYBE_TEXT,
        "form": _MAYBE_ANY,
        "content_hash": _MAYBE_TEXT,
        "approvals": {"type": ["integer", "null"]},
        "quorum": {"type": ["integer", "null"]},
    }
)
HOOK_RUN = _object(
    {
        "step": _TEXT,
        "hook": _TEXT,
        "on": _TEXT,
        "attempt": _COUNT,
        "at": _INSTANT,
        "reason": {**_MAYBE_TEXT, "description": "null: it ended well"},
        "message": _MAYBE_TEXT,
    }
)
_SUMMARY = {
    "id": _TEXT,
    "execution_id": _TEXT,
    "name": _MAYBE_TEXT,
    "tag": _MAYBE_TEXT,
    "status": _STATUS,
    "pipeline": _PINNED,
    "sequence": _COUNT,
    "created_by": _MAYBE_TEXT,
    "owner": _MAYBE_TEXT,
    "created_at": _INSTANT,
    "started_at": _MAYBE_INSTANT,
    "finished_at": _MAYBE_INSTANT,
    "links": _LINKS,
}
_WORDS = {"enum": [status.value for status in StepStatus]}
_STEP = _object(
    {
        "step_name": _TEXT,
        "step_type": _TEXT,
        "status": _WORDS,
        "events": {
            **_list(_object({"event_type": _WORDS, "attempt": _COUNT, "occurred_at": _INSTANT})),
            "description": "every word about the step, appended and never replaced",
        },
        "attempt": _COUNT,
        "reason": _MAYBE_TEXT,
        "message": _MAYBE_TEXT,
        "retry_at": _MAYBE_INSTANT,
        "waits": _MAYBE_ANY,
    }
)
SCHEMAS: Mapping[str, Any] = {
    "Approval": _object(
        {
            "request_id": _TEXT,
            "step": _TEXT,
            "name": _MAYBE_TEXT,
            "pipeline": _PINNED,
            "created_by": _MAYBE_TEXT,
            "values": _MAYBE_ANY,
            "since": _INSTANT,
            "until": _MAYBE_INSTANT,
            "content_hash": _MAYBE_TEXT,
            "approvers": _list(_TEXT),
            "groups": _list(_TEXT),
            "quorum": {"type": "integer", "minimum": 1},
            "form": _list(_ANY),
            "on_expiry": _TEXT,
            "links": _LINKS,
        }
    ),
    "ApprovalPage": _page("Approval"),
    "NewRequest": _REQUEST,
    "Request": _object(
        {
            **_SUMMARY,
            "values": {**_MAYBE_ANY, "description": "what has the name of a secret is hidden"},
            "waiting": WAITING,
            "content_hash": {**_MAYBE_TEXT, "description": "of what would be approved"},
            "steps": _list(_STEP),
            "approvals": _list(APPROVAL_WORD),
            "hooks": _list(HOOK_RUN),
            "files": _list(_ANY),
            "errors": _list(_ANY),
            "failure": _MAYBE_ANY,
            "rerun_of": _MAYBE_TEXT,
            "reruns": _list(_TEXT),
            "incomplete": {"type": "boolean"},
        }
    ),
    "RequestAccepted": _object(
        {"id": _TEXT, "execution_id": _TEXT, "status": {"const": "Not Started"}, "links": _LINKS},
        ("id", "execution_id", "status", "links"),
    ),
    "RequestPage": _page("RequestSummary"),
    "RequestSummary": _object(_SUMMARY),
}

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Same key, same body: the same wish, done once. Same key, other body: 409.",
}


def _body(schema: Any, *media_types: str) -> dict[str, Any]:
    content = {media_type: {"schema": schema} for media_type in media_types}
    return {"requestBody": {"required": True, "content": content}}


def _command(properties: Mapping[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    described = _body(_object(properties, required, additionalProperties=False), "application/json")
    described["requestBody"]["required"] = bool(required)
    return {**described, "parameters": [_IDEMPOTENCY_KEY]}


HOOK_BODY = _body(_HOOK, "application/json", "application/yaml")
REQUEST_BODY = {**_body(_ref("NewRequest"), "application/json"), "parameters": [_IDEMPOTENCY_KEY]}
REASON_BODY = _command({"reason": _REASON})
RERUN_BODY = _command(
    {
        "reason": _REASON,
        "fromFailed": {"type": "boolean", "description": "results of steps that completed are taken over"},
        "revision": {"enum": [*REVISIONS], "description": "of the pipeline; default: same"},
    }
)
AMEND_BODY = _command({"values": _ANY}, ("values",))
APPROVE_BODY = _command(
    {
        "remark": _REASON,
        "form": {"type": "object", "description": "the values of the step's form"},
        "contentHash": _HASH,
    }
)
REJECT_BODY = _command({"reason": _REASON, "contentHash": _HASH}, ("reason",))
REMARK_BODY = _command({"remark": _REASON}, ("remark",))
