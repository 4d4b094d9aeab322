"""Events as JSON for people and callers: the same fields, without anything sealed."""

from typing import Any

import msgspec

from services.contracts import events
from services.contracts.events import Event

_SEALED = ("headers", "secret")


def data(event: Event) -> dict[str, Any]:
    """The event's own fields as JSON-ready values; sealed fields and blob keys are left out."""
    body: dict[str, Any] = msgspec.to_builtins(event)
    if isinstance(event, events.ExecutionAccepted):
        request = body["request"]
        request.pop("headers")
        for callback in request["callbacks"]:
            for name in _SEALED:
                callback.pop(name)
    if isinstance(event, events.FilePublished):
        body["file"].pop("key")
    return body


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
