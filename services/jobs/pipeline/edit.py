"""Changes of a definition by API: services, actions and hooks added one by one (S2 2.18), datasets pinned.

Each gives a new body, to be checked and stored as a new revision: what `get` returns is always what runs.
"""

from collections.abc import Mapping
from typing import Any

from services.contracts.errors import FieldError
from services.jobs.fields import listed, shown
from services.jobs.pipeline.load import BOOKS, HOOK_KEYS, PINNED, SERVICES, as_object, mapping
from services.jobs.refused import Refused


def with_service(body: Any, name: str, service: Any) -> dict[str, Any]:
    """The body with this service, in the place of one of the same name."""
    changed = as_object(body)
    held = [key for key in SERVICES if name in mapping(changed.get(key))]
    key = held[0] if held else "Service" if "Service" in changed else "services"
    return {**changed, key: {**mapping(changed.get(key)), name: service}}


def with_action(body: Any, service: str, name: str, action: Any) -> dict[str, Any]:
    """The body with this action of a service. Raises Refused: it has no such service."""
    changed = as_object(body)
    for key in SERVICES:
        services = mapping(changed.get(key))
        if service in services:
            held = mapping(services[service])
            parameters = mapping(held.get("parameters"))
            actions = {**mapping(parameters.get("actions")), name: action}
            return with_service(body, service, {**held, "parameters": {**parameters, "actions": actions}})
    known = [*mapping(changed.get("services")), *mapping(changed.get("Service"))]
    raise Refused((FieldError("service", f"unknown service {shown(service)}; known: {listed(known)}"),))


def with_hook(body: Any, step: str, on: str, hook: Any) -> dict[str, Any]:
    """The body with one more hook of a step; `on` is enter, exit, success or error.

    Raises Refused: no such step or occasion.
    """
    key = f"on-{on}"
    if key not in HOOK_KEYS:
        known = listed(name.removeprefix("on-") for name in HOOK_KEYS)
        raise Refused((FieldError("on", f"unknown occasion {shown(on)}; known: {known}"),))
    changed = as_object(body)
    for book in BOOKS:
        tasks = mapping(mapping(changed.get(book)).get("tasks"))
        if step in tasks:
            held = {**tasks, step: _hooked(mapping(tasks[step]), key, hook)}
            return {**changed, book: {**changed[book], "tasks": held}}
    steps = changed.get("steps")
    steps = steps if isinstance(steps, list) else []
    names = [mapping(one).get("step_name") for one in steps]
    if step not in names:
        known = listed(map(str, names or [name for book in BOOKS for name in _tasks(changed, book)]))
        raise Refused((FieldError("step", f"unknown step {shown(step)}; known: {known}"),))
    index = names.index(step)
    return {**changed, "steps": [*steps[:index], _hooked(steps[index], key, hook), *steps[index + 1 :]]}


def with_datasets(body: Any, datasets: Mapping[str, Any]) -> Any:
    """The body with the datasets its EXPORT steps name, `{id: {revision, body}}`; none = the body itself."""
    if not datasets:
        return body if not isinstance(body, Mapping) else {k: v for k, v in body.items() if k != PINNED}
    return {**as_object(body), PINNED: dict(datasets)}


def datasets_named(body: Any) -> frozenset[str]:
    """The ids of the datasets that EXPORT steps name; the body need not have passed its checks."""
    whole = as_object(body)
    listed_steps = whole.get("steps")
    steps = listed_steps if isinstance(listed_steps, list) else []
    steps = [*steps, *(task for book in BOOKS for task in _tasks(whole, book).values())]
    named = [
        mapping(step.get("parameters")).get("dataset")
        for step in map(mapping, steps)
        if step.get("step_type") == "EXPORT"
    ]
    return frozenset(name for name in named if isinstance(name, str))


def _hooked(step: Any, key: str, hook: Any) -> dict[str, Any]:
    held = mapping(step)
    before = held.get(key)
    if before is None:
        return {**held, key: hook}
    return {**held, key: [*(before if isinstance(before, list) else [before]), hook]}


def _tasks(body: Mapping[str, Any], book: str) -> dict[str, Any]:
    return mapping(mapping(body.get(book)).get("tasks"))
