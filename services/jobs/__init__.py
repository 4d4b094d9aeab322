"""Job types: what may be asked for, and the steps it takes. Pure; api and the manager call the same `plan`.

A job type is one file here and one line in JOB_TYPES.
"""

from collections.abc import Callable, Mapping

from services.contracts.commands import JobRequested
from services.contracts.errors import FieldError
from services.contracts.events import PlannedStep
from services.jobs import export, noop, pipeline
from services.jobs.documents import first_inexact, inexact
from services.jobs.fields import listed, shown
from services.jobs.refused import Refused

JobType = Callable[[JobRequested], tuple[PlannedStep, ...]]

JOB_TYPES: Mapping[str, JobType] = {
    "export": export.plan,
    "noop": noop.plan,
    "pipeline": pipeline.plan,
}


def plan(request: JobRequested) -> tuple[PlannedStep, ...]:
    """The steps of a request, in order. Raises Refused with every fault, each with its pointer."""
    job_type = JOB_TYPES.get(request.job_type)
    if job_type is None:
        message = f"unknown job type {shown(request.job_type)}; known: {listed(JOB_TYPES)}"
        raise Refused((FieldError("jobType", message),))
    _refuse_inexact(request)
    return job_type(request)


def _refuse_inexact(request: JobRequested) -> None:
    """Numbers of records that other services wrote; those of bodies are refused when they are read."""
    definition = request.definition.body if request.definition else None
    for at, value in (("", request.parameters), ("definition.body", definition)):
        if found := first_inexact(value):
            place, number = found
            raise Refused((FieldError(f"{at}.{place}".removeprefix("."), inexact(number)),))
