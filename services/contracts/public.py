"""Events as JSON for people and callers: the same fields, without anything sealed or named as a secret."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from services.contracts import events
from services.contracts.events import Event

MASK = "***"
_SEALED = ("headers", "secret")
_SECRET = re.compile(r"pass(word|wd|phrase)|secret|token|credential|api_?key|authorization", re.IGNORECASE)


def masked(value: Any, name: str = "") -> Any:
    """A value of a form as readers see it: what has the name of a secret is hidden, at any depth."""
    if value is not None and _SECRET.search(name):
        return MASK
    if isinstance(value, Mapping):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return value


def data(event: Event) -> dict[str, Any]:
    """The event's own fields as JSON-ready values: no sealed field, no blob key, and secrets hidden."""
    body: dict[str, Any] = msgspec.to_builtins(event)
    if isinstance(event, events.ExecutionAccepted):
        request = body["request"]
        request.pop("headers")
        for callback in request["callbacks"]:
            for name in _SEALED:
                callback.pop(name)
        _mask(request["parameters"])
    if isinstance(event, events.ExecutionAmended):
        _mask(body["parameters"])
    if isinstance(event, events.FilePublished):
        body["file"].pop("key")
    return body


def _mask(parameters: Any) -> None:
    if isinstance(parameters, dict) and "values" in parameters:
        parameters["values"] = masked(parameters["values"])


def view(event: Event) -> dict[str, Any]:
    """One entry of `GET /v1/executions/{id}/events`: `{type, ...data}`."""
    return {"type": events.type_of(event), **data(event)}


def cloud_event(event: Event) -> dict[str, Any]:
    """CloudEvents 1.0, structured JSON: the body of a callback."""
    return {
        "specversion": "1.0",
        "id": event.event_id,
        "source": "/millstream",
        "type": events.type_of(event),
        "subject": event.execution_id,
        "time": event.occurred_at.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data(event),
    }
