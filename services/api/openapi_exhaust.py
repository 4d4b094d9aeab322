"""The published description of S1's data-exhaust API: bodies and answers in its envelopes."""

from collections.abc import Mapping
from typing import Any

from services.api.core.exhaust import CLIENTS_ID, ID, LISTED_MAX, STATUSES, TAG, VERSION

_TEXT = {"type": "string"}
_EPOCH_S = {"type": "integer", "description": "seconds since 1970"}
_TEXTS = {"type": "array", "items": _TEXT}


def _object(properties: Mapping[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _request(name: str, request: Mapping[str, Any]) -> dict[str, Any]:
    return _object(
        {
            "id": {"enum": [ID + name, CLIENTS_ID]},
            "ver": {"const": VERSION},
            "ts": {"type": "string", "format": "date-time"},
            "params": _object({"msgid": {"type": "string", "format": "uuid"}}, ("msgid",)),
            "request": request,
        },
        ("id", "ver", "ts", "params", "request"),
    )


def _response(names: tuple[str, ...], result: Mapping[str, Any]) -> dict[str, Any]:
    status = {"enum": ["successful", "failed"]}
    maybe = {"type": ["string", "null"]}
    return _object(
        {
            "id": {"enum": [ID + name for name in names]},
            "ver": {"const": VERSION},
            "ts": {"type": "string", "format": "date-time"},
            "params": _object(
                {
                    "resmsgid": _TEXT,
                    "status": status,
                    "err": maybe,
                    "errmsg": maybe,
                    "ignored": {**_TEXTS, "description": "fields that nobody knows, if there were any"},
                }
            ),
            "responseCode": {"type": "string", "examples": ["OK", "CLIENT_ERROR"]},
            "result": result,
        },
        ("id", "ver", "ts", "params", "responseCode", "result"),
    )


_JOB = _object(
    {
        "request_id": {"type": "string", "pattern": "^[0-9a-f]{40}$"},
        "tag": _TEXT,
        "status": {"enum": list(STATUSES)},
        "last_updated": _EPOCH_S,
        "request": _object(
            {
                "jobId": _TEXT,
                "batchFilters": {
                    "description": "as asked; once it is known, the batches and channels it stands for",
                    "oneOf": [_TEXTS, _object({"ids": _TEXTS, "channels": _TEXTS}), {"type": "null"}],
                },
                "output_format": {"type": ["string", "null"]},
            }
        ),
        "job_stats": _object(
            {
                "dt_job_submitted": _EPOCH_S,
                "dt_job_completed": _EPOCH_S,
                "execution_time": {"type": "integer", "description": "seconds"},
            }
        ),
        "downloadURLs": {**_TEXTS, "description": "signed, one for each batch"},
        "expiresAt": {"type": ["integer", "null"], "description": "of the URLs, in milliseconds since 1970"},
        "attempts": {"type": "integer", "description": "how often it had to be tried again"},
        "err_message": {"type": "string", "maxLength": 100},
    }
)
SCHEMAS: Mapping[str, Any] = {
    "JobRequest": _request(
        "submit",
        _object(
            {
                "tag": {"type": "string", "pattern": f"^{TAG.pattern}$"},
                "jobId": {"type": "string", "description": "the id of a dataset"},
                "jobConfig": _object(
                    {
                        "batchFilters": {
                            **_TEXTS,
                            "description": "batches, or channels for all their batches",
                        },
                        "contentFilters": _object({"request": {"type": "object"}}),
                        "reportPath": _TEXT,
                    }
                ),
                "output_format": {"type": "string", "examples": ["csv"]},
            },
            ("tag", "jobId"),
        ),
    ),
    "JobSearch": _request(
        "search",
        _object(
            {
                "filters": _object(
                    {
                        "jobId": _TEXT,
                        "status": {"enum": list(STATUSES)},
                        "requestedDate": {"type": "string", "format": "date"},
                        "channel": _TEXT,
                    }
                ),
                "limit": {"type": "integer", "minimum": 1, "maximum": LISTED_MAX},
            }
        ),
    ),
    "JobStatusResponse": _JOB,
    "JobStatus": _response(("submit", "info"), _ref("JobStatusResponse")),
    "JobStatusList": _response(
        ("list", "search"),
        _object(
            {"count": {"type": "integer"}, "jobs": {"type": "array", "items": _ref("JobStatusResponse")}}
        ),
    ),
    "JobFailure": _response(
        ("submit", "info", "list", "search"),
        _object({"errors": {"type": "array", "items": {"type": "object"}}}),
    ),
}


def _body(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(schema)}}
    return {"requestBody": {"required": True, "content": content}}


SUBMIT = {
    **_body("JobRequest"),
    "parameters": [
        {
            "name": "X-Channel-ID",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "maxLength": 50},
            "description": "The caller's channel; kept as requested_channel, searched by `channel`.",
        }
    ],
}
SEARCH = _body("JobSearch")
FAILED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "params.status is failed; params.err and params.errmsg tell why",
        "content": {"application/json": {"schema": _ref("JobFailure")}},
    }
}
