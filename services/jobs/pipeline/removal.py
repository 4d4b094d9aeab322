"""Taking services, actions and hooks out of a pipeline's body, one by one (S2 2.18): the body without it.

None: there is no such thing in it.
"""

from collections.abc import Mapping
from typing import Any

from services.jobs.pipeline.load import BOOKS, SERVICES, as_object, mapping


def without_service(body: Any, name: str) -> dict[str, Any] | None:
    """The body without a service; that steps still call it is found when the body is checked."""
    changed = as_object(body)
    for key in SERVICES:
        services = mapping(changed.get(key))
        if name in services:
            return {**changed, key: _without(services, name)}
    return None


def without_action(body: Any, service: str, name: str) -> dict[str, Any] | None:
    """The body without an action of a service."""
    changed = as_object(body)
    for key in SERVICES:
        services = mapping(changed.get(key))
        held = mapping(services.get(service))
        parameters = mapping(held.get("parameters"))
        actions = mapping(parameters.get("actions"))
        if name in actions:
            parameters = {**parameters, "actions": _without(actions, name)}
            return {**changed, key: {**services, service: {**held, "parameters": parameters}}}
    return None


def without_hook(body: Any, step: str, on: str, index: int) -> dict[str, Any] | None:
    """The body without the hook at this place, from 0, of a step's `on-<on>`."""
    changed = as_object(body)
    key = f"on-{on}"
    for book in BOOKS:
        held = mapping(changed.get(book))
        tasks = mapping(held.get("tasks"))
        if step in tasks:
            task = _unhooked(mapping(tasks[step]), key, index)
            return None if task is None else {**changed, book: {**held, "tasks": {**tasks, step: task}}}
    given = changed.get("steps")
    steps = given if isinstance(given, list) else []
    for at, one in enumerate(steps):
        if mapping(one).get("step_name") == step:
            found = _unhooked(mapping(one), key, index)
            return None if found is None else {**changed, "steps": [*steps[:at], found, *steps[at + 1 :]]}
    return None


def _unhooked(step: dict[str, Any], key: str, index: int) -> dict[str, Any] | None:
    hooks = step.get(key)
    if hooks is None:
        return None
    entries = hooks if isinstance(hooks, list) else [hooks]
    if index >= len(entries):
        return None
    rest = [*entries[:index], *entries[index + 1 :]]
    return {**step, key: rest} if rest else _without(step, key)


def _without(held: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in held.items() if key != name}
