"""Services: a remote API with a base URL and named actions, which steps and hooks call (S2 2.7).

    Service:
      Logger:
        type: HTTP
        parameters:
          baseUrl: {$.LoggerURL}         # or a plain URL
          headers: {accept: application/json}
          actions:
            start: {parameters: {url: /log, method: GET, query: {task: {$.execution.task}}}}

`{$.LoggerURL}` lets a value of the request name the host: writing it so is the permission to. An action, and
who uses it, add to `headers`, `query` and `data`; the later one wins.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.jobs.fields import Faults, Fields, clean, listed, shown
from services.jobs.pipeline import calls, policies
from services.jobs.pipeline.work import Place, Work
from services.language import expressions
from services.language.expressions import ExpressionError, expression_text
from services.language.expressions.nodes import Read
from services.language.paths import written

ACTIONS_MAX = 100
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
NAME_RULE = "a letter, then letters, digits, _ and -, at most 64"
RESERVED = "std"
_PARAMETERS = ("baseUrl", "allow_host", "actions", *calls.OWN_KEYS)


@dataclass(frozen=True, slots=True)
class Service:
    """A checked service: its actions by name, each a whole call. `unread`: it has faults of its own."""

    name: str
    actions: Mapping[str, Work]
    unread: bool


class Services(dict[str, Service]):
    """The services of a body by name. `unread`: there may be more, in what could not be read."""

    def __init__(self, *, unread: bool) -> None:
        super().__init__()
        self.unread = unread


def read(found: tuple[tuple[str, str, Any], ...], faults: Faults, *, unread: bool) -> Services:
    """The services of a body, (name, pointer, value) each; faults are noted."""
    services = Services(unread=unread)
    for name, at, value in found:
        if not NAME.fullmatch(name) or name == RESERVED:
            faults.add(at, f"expected a name of a service ({NAME_RULE}, not std), found {shown(name)}")
        if name in services:
            faults.add(at, f"service {shown(name)} stands in both services and Service")
        services[name] = _service(name, Fields(value, at, ("type", "parameters", "description"), faults))
    return services


def with_own(call: Work, own: Fields) -> Work:
    """The call with what its user adds to it."""
    return calls.merged(call, calls.read_own(own))


def _service(name: str, fields: Fields) -> Service:
    before = len(fields.faults)
    if fields.get("type") != "HTTP":
        message = f"unknown type {shown(fields.get('type'))} of a service; known: HTTP"
        fields.faults.add(fields.pointer("type"), message)
    parameters = fields.object("parameters", _PARAMETERS)
    base, allowed = _base(parameters)
    allowed = policies.flag(parameters, "allow_host") or allowed
    shared = calls.read_own(parameters)
    if base is not None:
        place = Place("url", parameters.pointer("baseUrl"), base, allowed)
        shared = Work(shared.parameters, (place, *shared.places))
    actions = {}
    for action, at, value in _actions(parameters):
        entry = Fields(value, at, ("parameters", "description"), fields.faults)
        called = _action(entry.object("parameters", calls.KEYS), base, allowed)
        actions[action] = calls.merged(Work({"headers": {}, **shared.parameters}, shared.places), called)
    return Service(name, actions, unread=len(fields.faults) > before or bool(fields.unknown))


def _base(parameters: Fields) -> tuple[str | None, bool]:
    """The base URL as a text with placeholders, and whether it lets values name the host."""
    value, at = parameters.get("baseUrl"), parameters.pointer("baseUrl")
    if (text := expression_text(value)) is not None:
        try:
            root = expressions.parse(text).root
        except ExpressionError as error:
            parameters.faults.add(at, str(error))
            return None, False
        if isinstance(root, Read):
            return "${" + written(root.path) + "}", True
    if isinstance(value, str) and text is None:
        if "?" in value:
            parameters.faults.add(at, f"expected a base URL without a query, found {shown(value)}")
            return None, False
        return value, False
    wanted = "a URL, or one path such as {$.LoggerURL}"
    parameters.faults.add(at, f"expected {wanted}, found {shown(value)}")
    return None, False


def _actions(parameters: Fields) -> list[tuple[str, str, Any]]:
    value, at = parameters.get("actions"), parameters.pointer("actions")
    if value is None:
        return []  # a service whose actions are still to be added
    if not isinstance(value, Mapping) or len(value) > ACTIONS_MAX:
        parameters.faults.add(
            at, f"expected an object of at most {ACTIONS_MAX} actions, found {shown(value)}"
        )
        return []
    found = []
    for name, action in value.items():
        pointer = f"{at}.{clean(str(name))}"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            parameters.faults.add(pointer, f"expected a name of an action ({NAME_RULE}), found {shown(name)}")
        found.append((str(name), pointer, action))
    return found


def _action(fields: Fields, base: str | None, allowed: bool) -> Work:
    call = calls.read(fields, ("url", "method"))
    allowed = allowed or call.parameters.get("allow_host", False)
    rest = tuple(place for place in call.places if place.member != "url")
    path = call.parameters.pop("url", None)
    if path is None:
        return Work(call.parameters, rest)
    if not isinstance(path, str) or "://" in path.partition("?")[0]:
        message = f"expected a path, which is put behind baseUrl, found {shown(path)}"
        fields.faults.add(fields.pointer("url"), message)
        return Work(call.parameters, rest)
    if base is None:
        return Work(call.parameters, rest)
    url = _joined(base, path)
    parameters = {**call.parameters, "url": url, **({"allow_host": True} if allowed else {})}
    return Work(parameters, (Place("url", fields.pointer("url"), url, allowed), *rest))


def _joined(base: str, path: str) -> str:
    between = "" if not path or path.startswith(("/", "?")) else "/"
    return f"{base.rstrip('/')}{between}{path}"


def called(name: str, services: Services) -> Work | str:
    """The call that `Service:action` names; a text says why there is none.

    Where it may be in what could not be read, an empty one stands for it: that fault has been told.
    """
    service, _, action = name.partition(":")
    if service not in services:
        if services.unread:
            return Work({})
        return f"unknown service {shown(service)}; known: {listed(services)}"
    actions = services[service].actions
    if action not in actions:
        if services[service].unread:
            return Work({})
        return f"unknown action {shown(action)} of service {service}; known: {listed(actions)}"
    return actions[action]
