"""Requests as S1's data-exhaust API writes them, and `job.requested` in its terms."""

from typing import Any

from services.contracts.commands import JobRequested


def request_data(request: JobRequested) -> dict[str, Any]:
    """What was asked for, as the column `request_data` keeps it (S1 1.14): never anything sealed."""
    definition = request.definition
    parameters = request.parameters if isinstance(request.parameters, dict) else {}
    params = parameters.get("params")
    config = dict(params) if isinstance(params, dict) else {}
    output_format = config.pop("format", None)
    job_id = definition.id if definition else request.definition_id or request.job_type
    return {"jobId": job_id, "jobConfig": config, "output_format": output_format}
