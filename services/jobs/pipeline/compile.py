"""Job type `pipeline`: a request's values checked against the form, and the plan of its steps.

    parameters: {values: {name: value}, time_range: null}

The plan carries templates: the manager fills each step's when it is asked for, because earlier results are
not known before. That the values of the request fill them is made certain here: a bad request fails at once.
"""

from collections.abc import Mapping

from services.contracts import flow
from services.contracts.commands import JobRequested, Json
from services.contracts.errors import FieldError
from services.contracts.events import PlannedStep
from services.jobs.fields import Faults, Fields
from services.jobs.pipeline import check, values
from services.jobs.pipeline.kinds import KINDS
from services.jobs.pipeline.shape import Limit, Pipeline, Step
from services.jobs.pipeline.work import Place
from services.jobs.refused import Refused
from services.language import placeholders, scope
from services.language.values import as_text

_LATER = placeholders.AT_CREATION | {"result"}


def plan(request: JobRequested) -> tuple[PlannedStep, ...]:
    """The steps of the request's pipeline, the first one first. Raises Refused with every fault."""
    definition = request.definition
    if definition is None or definition.kind != "pipeline":
        message = "expected the id of a pipeline, found nothing; GET /v1/pipelines lists them"
        raise Refused((FieldError("pipeline", message),))
    pipeline = _known(definition.body)
    faults = Faults()
    outer = Fields(request.parameters, "", ("values", "time_range"), faults)
    if outer.get("time_range") is not None:
        faults.add("timeRange", "a pipeline has no time range; remove the field")
    given = values.checked(pipeline.form, outer.get("values"), faults)
    faults.raise_if_any()  # what cannot be filled for want of a value is the same fault
    planned = tuple(_planned(step, pipeline, given, faults) for step in pipeline.steps)
    faults.raise_if_any()
    return planned


def given_values(pipeline: Pipeline, sent: Json) -> dict[str, Json]:
    """The values of a request, its form's defaults included. Raises Refused."""
    faults = Faults()
    found = values.checked(pipeline.form, sent, faults)
    faults.raise_if_any()
    return found


def form_of(pipeline: Pipeline) -> list[dict[str, Json]]:
    """The form that a request has to fill, as a definition would write it; derived where there is none."""
    return [field.as_json() for field in pipeline.form]


def limits_of(pipeline: Pipeline, id: str, given: Mapping[str, Json]) -> list[dict[str, Json]]:
    """The limits as a request carries them: `{key, max, holds_paused}`, keys filled. Raises Refused."""
    return [
        {"key": _limit_key(limit, index, id, given), "max": limit.max, "holds_paused": limit.holds_paused}
        for index, limit in enumerate(pipeline.limits)
    ]


def _limit_key(limit: Limit, index: int, id: str, given: Mapping[str, Json]) -> str:
    if limit.key == "pipeline":
        return f"pipeline:{id}"
    place = Place("data", f"definition.body.limits[{index}].key", limit.key)
    try:
        return as_text(place.filled(scope.context(given, {}, {}, {}), frozenset()))
    except placeholders.Unfilled as unfilled:
        raise Refused(unfilled.errors) from None


def _known(body: Json) -> Pipeline:
    try:
        return check.parsed(body)
    except Refused as refused:
        raise Refused(tuple(_within(error) for error in refused.errors)) from None


def _within(error: FieldError) -> FieldError:
    between = "" if error.pointer.startswith("[") else "."
    return FieldError(
        f"definition.body{between}{error.pointer}".replace(".body.body", ".body"), error.message
    )


def _planned(step: Step, pipeline: Pipeline, given: Mapping[str, Json], faults: Faults) -> PlannedStep:
    kind = KINDS[step.kind]
    context = scope.context(given, {}, {}, {})
    own = Faults()
    if kind.plan is not None:
        parameters = kind.plan(step, context, pipeline.pinned, own)
    else:
        parameters = step.work.parameters
    works = step.calls if kind.plan is not None else (step.work, *step.calls)
    errors = [*own.errors, *(error for work in works for error in work.unfillable(context, _LATER))]
    for error in dict.fromkeys(map(_within, errors)):
        faults.add(error.pointer, error.message)
    return PlannedStep(
        name=step.name,
        kind=step.kind,
        parameters=parameters,
        timeout_s=step.timeout_s,
        max_attempts=step.max_attempts,
        flow=flow.packed(step.flow),
    )
