"""Parameters at the moment a step is asked for: expressions evaluated, placeholders filled, secrets left.

Made from the state alone, so that an order made twice is the same. Only the worker opens secrets: it fills
headers and data of a call once more, with `${secrets.name}` as the only placeholders.
"""

from collections.abc import Mapping

from services.contracts.commands import Json
from services.executor.core.context import context
from services.executor.core.execution import Execution
from services.jobs.pipeline.kinds import KINDS
from services.language import placeholders


def filled(state: Execution, index: int) -> Json:
    """The parameters of a step. Raises Unfilled."""
    plan = state.steps[index].plan
    if plan.kind == "API":
        return call(plan.parameters, context(state, index))
    kind = KINDS.get(plan.kind)
    if not plan.parameters or kind is None or kind.plan is not None:
        return plan.parameters  # planned as it is to run
    return placeholders.fill_data(plan.parameters, context(state, index), "", expressions=True)


def call(parameters: Mapping[str, Json], values: Mapping[str, Json]) -> dict[str, Json]:
    """The parameters of a call, as the worker takes them. Raises Unfilled."""
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
