"""Parameters at the moment a step is asked for: expressions evaluated, placeholders filled, secrets left.

Made from the state alone, so that an order made twice is the same. Only the worker opens secrets: it fills
headers and data of a call once more, with `${secrets.name}` as the only placeholders. Whatever else stands
there has the dollars before a brace doubled, so that a value that looks like a placeholder stays a text.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from services.contracts import ids
from services.contracts.commands import Json
from services.executor.core.context import context
from services.executor.core.execution import Execution
from services.language import placeholders, scope
from services.language.paths import written

_DOLLARS = re.compile(r"\$+(?=\{)")


def filled(state: Execution, index: int) -> Json:
    """The parameters of a step. Raises Unfilled."""
    plan = state.steps[index].plan
    match plan.kind:
        case "API":
            return call(plan.parameters, context(state, index))
        case "TRANSFORM":
            return placeholders.fill_data(plan.parameters, context(state, index), "", expressions=True)
        case _:
            return plan.parameters


def call(parameters: Mapping[str, Json], values: Mapping[str, Json]) -> dict[str, Json]:
    """The parameters of a call, as the worker takes them. Raises Unfilled."""
    found = dict(parameters)
    marks = _marks(parameters, values)
    secrets = dict(marks.values())
    known = {**values, scope.SECRETS: secrets}
    if "url" in found:
        allow_host = bool(found.get("allow_host"))
        found["url"] = placeholders.fill_url(found["url"], values, allow_host=allow_host)
    if "query" in found:
        found["query"] = placeholders.fill_query(found["query"], values, expressions=True)
    texts = {mark: text for text, (_, mark) in marks.items()}
    if "headers" in found:
        headers = placeholders.fill_headers(found["headers"], known, expressions=True)
        found["headers"] = _left(headers, texts)
    if "data" in found:
        found["data"] = _left(placeholders.fill_data(found["data"], known, expressions=True), texts)
    return found


def _marks(parameters: Mapping[str, Json], values: Mapping[str, Json]) -> dict[str, tuple[str, str]]:
    """`${secrets.name}` -> name, and a text that stands for it while the rest is filled.

    The text is a hash over everything that is filled in, so nothing in it can hold the text.
    """
    paths = placeholders.names({part: parameters.get(part) for part in ("headers", "data")})
    named = sorted({path[1] for path in paths if path[0] == scope.SECRETS and isinstance(path[1], str)})
    if not named:
        return {}
    digest = ids.body_hash([parameters, dict(values)])
    return {
        "${" + written((scope.SECRETS, name)) + "}": (name, f"{digest}-{number:04}-")
        for number, name in enumerate(named)
    }


def _left(value: Json, texts: Mapping[str, str]) -> Json:
    """The value with its dollars doubled and its marks made placeholders again."""

    def text(found: str) -> str:
        doubled = _DOLLARS.sub(lambda run: run[0] * 2, found)
        for mark, placeholder in texts.items():
            doubled = doubled.replace(mark, placeholder)
        return doubled

    return _mapped(value, text)


def _mapped(value: Json, text: Callable[[str], str]) -> Any:
    match value:
        case str():
            return text(value)
        case Mapping():
            return {text(key): _mapped(one, text) for key, one in value.items()}
        case list() | tuple():
            return [_mapped(one, text) for one in value]
        case _:
            return value
