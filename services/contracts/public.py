"""Events as JSON for people and callers: the same fields, without anything sealed or named as a secret."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from services.contracts import events
from services.contracts.events import Event
from services.contracts.secret_names import is_secret

MASK = "***"
_SEALED = ("headers", "secret")


def masked(value: Any, declared: Collection[str] = (), name: str = "") -> Any:
    """Values of a form as readers see them: `declared` fields are hidden, and what has the name of a secret,
    at any depth."""
    if value is not None and is_secret(name):
        return MASK
    if isinstance(value, Mapping):
        return {
            key: MASK if key in declared and inner is not None else masked(inner, name=str(key))
            for key, inner in value.items()
        }
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
        _mask(request["parameters"], declared(event.request.definition and event.request.definition.body))
    if isinstance(event, events.ExecutionAmended):
        _mask(body["parameters"], event.secret_fields)
    if isinstance(event, events.ApprovalDecided):
        body["form"] = masked(event.form, event.secret_fields)
    if isinstance(event, events.StepCompleted) and isinstance(event.output, Mapping):
        _mask_approval(body["output"])
    if isinstance(event, events.FilePublished):
        body["file"].pop("key")
    return body


def declared(definition: Any) -> frozenset[str]:
    """The fields that the form of a pipeline, or an approval's parameters, declare to be secret."""
    form = definition.get("form") if isinstance(definition, Mapping) else None
    fields = [field for field in form if isinstance(field, Mapping)] if isinstance(form, list) else []
    return frozenset(str(field.get("name")) for field in fields if field.get("secret") is True)


def _mask(parameters: Any, secret: Collection[str]) -> None:
    if isinstance(parameters, dict) and "values" in parameters:
        parameters["values"] = masked(parameters["values"], secret)


def _mask_approval(output: dict[str, Any]) -> None:
    """An approval's result holds its form, for later steps to read; other results are their steps' own."""
    if output.keys() >= {"decision", "approved_by", "form"}:
        output["form"] = masked(output["form"], output.get("secret_fields") or ())


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
