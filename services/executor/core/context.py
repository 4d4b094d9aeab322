"""What the expressions and placeholders of a pipeline read of its execution (services/language/scope.py)."""

from typing import Any

from services.contracts.commands import Json
from services.executor.core.execution import Execution
from services.executor.core.visit import Held
from services.language import scope

RESULT = "result"


def context(state: Execution, index: int, result: Held | None = None) -> dict[str, Json]:
    """The context while the step at `index` is led; `result` is the outcome of its work, if not held yet.

    The outcome that a step's exit actions see counts as told: they exist to react to it.
    """
    request = state.request
    assert request is not None, "only what was accepted runs"
    held = result if result is not None else _held(state, index)
    steps: dict[str, Json] = {
        step.plan.name: {"status": step.status.value, "result": step.output} for step in state.steps
    }
    name = state.steps[index].plan.name
    error: Json = None
    if state.error is not None:
        error = {"step": state.error.step, "reason": state.error.reason, "message": state.error.message}
    if held is not None and held.done:
        steps[name] = {"status": "Completed", "result": held.output}
    elif held is not None:
        steps[name] = {"status": "Failed", "result": None}
        error = {"step": name, "reason": held.reason, "message": held.message}
    found = scope.context(
        values(request.parameters),
        steps,
        {"id": state.execution_id, "task": name, "error": error},
        {"name": request.name, "tag": request.tag, "created_by": request.created_by},
    )
    return found if held is None else {**found, RESULT: held.output}


def values(parameters: Json) -> dict[str, Any]:
    """The values that a request brought for its pipeline."""
    found = parameters.get("values") if isinstance(parameters, dict) else None
    return found if isinstance(found, dict) else {}


def _held(state: Execution, index: int) -> Held | None:
    visit = state.steps[index].visit
    return visit.held if visit else None
