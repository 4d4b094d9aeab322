"""The values of a request for a pipeline, completed by the defaults of its form."""

from msgspec.structs import replace

from services.contracts.commands import JobRequested
from services.jobs import pipeline

KIND = "pipeline"


def completed(request: JobRequested) -> JobRequested:
    """The request with every value that its form gives; one whose plan could be made has no faults.

    api does so itself; other services may leave defaults to us.
    """
    definition = request.definition
    if definition is None or definition.kind != KIND or request.job_type != KIND:
        return request
    known = pipeline.parsed(definition.body)
    given = pipeline.given_values(known, request.parameters.get("values"))
    if given == request.parameters.get("values"):
        return request
    return replace(request, parameters={**request.parameters, "values": given})
