"""What tests of pipelines share: steps in S3's form, services in S2's, and requests as api makes them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from services.contracts.commands import Definition, JobRequested

AT = datetime(2026, 1, 1, tzinfo=UTC)


def api(name: str = "call", /, **changes: Any) -> dict[str, Any]:
    """An API step that says only what must be said; `parameters` are added to."""
    parameters = {
        "method": "POST",
        "url": "https://shop.example/orders",
        "headers": {},
        "data": {},
        **changes.pop("parameters", {}),
    }
    return {"step_name": name, "step_type": "API", "parameters": parameters, **changes}


def noop(name: str, /, **changes: Any) -> dict[str, Any]:
    """A step that does nothing."""
    return {"step_name": name, "step_type": "NOOP", **changes}


def linked(*names: str, **changes: Any) -> list[dict[str, Any]]:
    """NOOP steps as S3 chains them; `changes` by name of the step."""
    steps = []
    for index, name in enumerate(names):
        last = index == len(names) - 1
        links = {
            "next_step_name": "" if last else names[index + 1],
            "prev_step_name": "" if index == 0 else names[index - 1],
            "is_terminal_step": last,
        }
        steps.append(noop(name, **{**links, **changes.get(name, {})}))
    return steps


def logger(**changes: Any) -> dict[str, Any]:
    """S2's Logger with one action."""
    start = {"parameters": {"url": "/log", "method": "GET", "query": {"task": {"$.execution.task": None}}}}
    parameters = {"baseUrl": "https://log.example/v1", "actions": {"start": start}, **changes}
    return {"Logger": {"type": "HTTP", "parameters": parameters}}


def request(body: Any, values: Any = None, **changes: Any) -> JobRequested:
    """A request for the pipeline `p` with this body."""
    fields: dict[str, Any] = {
        "execution_id": "e" * 40,
        "tenant": "acme",
        "requested_at": AT,
        "created_by": "tests",
        "name": "test",
        "job_type": "pipeline",
        "definition": Definition(kind="pipeline", id="p", revision=1, body=body),
        "parameters": {"values": values, "time_range": None},
    }
    return JobRequested(**{**fields, **changes})


def tasks(book: str = "Workbook", **tasks: Mapping[str, Any]) -> dict[str, Any]:
    """S2's form."""
    return {book: {"tasks": tasks}}
