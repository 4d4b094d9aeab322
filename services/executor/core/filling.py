"""Parameters at the moment a step is asked for: expressions evaluated, placeholders filled, secrets left.

Made from the state alone, so that an order made twice is the same. Only the worker opens secrets: it fills
headers and data of a call once more, with `${secrets.name}` as the only placeholders.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from services.contracts.commands import Json
from services.executor.core.context import context
from services.executor.core.execution import Execution
from services.executor.core.visit import MESSAGE_CHARS_MAX
from services.jobs.pipeline.kinds import KINDS
from services.language import placeholders

T = TypeVar("T")

ORDER_BYTES_MAX = 800_000
"""Of filled parameters as JSON: below what a record takes. A control character is six bytes there."""


class Unaskable(Exception):
    """A step or action cannot be asked for like this: a stable reason, and a message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def filled(state: Execution, index: int) -> Json:
    """The parameters of a step. Raises Unaskable."""
    plan = state.steps[index].plan
    if plan.kind == "API":
        return call(plan.parameters, context(state, index))
    kind = KINDS.get(plan.kind)
    if not plan.parameters or kind is None or kind.plan is not None:
        return plan.parameters  # planned as it is to run
    try:
        found = placeholders.fill_data(plan.parameters, context(state, index), "", expressions=True)
    except placeholders.Unfilled as unfilled:
        raise _unresolved(unfilled) from None
    return _fitting(found)


def call(parameters: Mapping[str, Json], values: Mapping[str, Json]) -> dict[str, Json]:
    """The parameters of a call, as the worker takes them. Raises Unaskable."""
    try:
        return _fitting(_call(parameters, values))
    except placeholders.Unfilled as unfilled:
        raise _unresolved(unfilled) from None


def _unresolved(unfilled: placeholders.Unfilled) -> Unaskable:
    return Unaskable("unresolved_placeholder", str(unfilled)[:MESSAGE_CHARS_MAX])


def _fitting(parameters: T) -> T:
    if (size := len(msgspec.json.encode(parameters))) > ORDER_BYTES_MAX:
        message = (
            f"parameters: expected at most {ORDER_BYTES_MAX} bytes as JSON once they are filled, found {size}"
        )
        raise Unaskable("too_large", message)
    return parameters


def _call(parameters: Mapping[str, Json], values: Mapping[str, Json]) -> dict[str, Json]:
    found = dict(parameters)
    if "url" in found:
        allow_host = bool(found.get("allow_host"))
        found["url"] = placeholders.fill_url(found["url"], values, allow_host=allow_host)
    if "query" in found:
        found["query"] = placeholders.fill_query(found["query"], values, expressions=True)
    if "headers" in found:
        found["headers"] = placeholders.bind_headers(found["headers"], values, expressions=True)
    if "data" in found:
        found["data"] = placeholders.bind_data(found["data"], values, expressions=True)
    return found
