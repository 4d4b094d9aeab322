"""EXPORT: rows of a dataset as files, as an execution of its own would write them.

    step_type: EXPORT
    parameters:
      dataset: flights-report
      batches: ["${carrier}"]
      columns: [carrier, flight]
      filters: [{column: month, op: eq, value: "${month}"}]
      time_range: {from: "2013-01-01T00:00:00Z", to: "${until}"}

The files are planned when the request is made, so its parameters take values of the request and no results of
steps; their names tell the step (services/contracts/file_names.py). The pipeline's revision holds the
dataset's: what runs is what was read when the pipeline was written.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from services.contracts.commands import Definition, JobRequested, Json
from services.contracts.names import DEFINITION_ID
from services.jobs import export
from services.jobs.fields import Faults, Fields, shown
from services.jobs.pipeline.kinds.kind import Kind
from services.jobs.pipeline.shape import Step
from services.jobs.pipeline.work import Place, Work
from services.jobs.refused import Refused
from services.language.placeholders import Unfilled

_KEYS = ("dataset", "time_range", *export.PARAMS)


def _read(parameters: Fields) -> Work:
    dataset, at = parameters.get("dataset"), parameters.pointer("dataset")
    if not isinstance(dataset, str) or not DEFINITION_ID.fullmatch(dataset):
        wanted = "the id of a dataset (GET /v1/datasets lists them)"
        parameters.faults.add(at, f"expected {wanted}, found {shown(dataset)}")
    given = {key: parameters.get(key) for key in _KEYS if parameters.get(key) is not None}
    return Work(given, (Place("data", at.removesuffix(".dataset"), given),))


def _plan(step: Step, values: Mapping[str, Json], pinned: Mapping[str, Json], faults: Faults) -> Json:
    given, place = step.work.parameters, step.work.places[0]
    try:
        filled = place.filled(values, frozenset())
    except Unfilled as unfilled:
        for error in unfilled.errors:
            faults.add(error.pointer, error.message)
        return given
    params = {key: filled[key] for key in export.PARAMS if key in filled}
    try:
        (planned,) = export.plan(_request(given["dataset"], pinned, params, filled.get("time_range")))
    except Refused as refused:
        for error in refused.errors:
            faults.add(_pointer(error.pointer, given["dataset"], place.pointer), error.message)
        return given
    return {**planned.parameters, "among_steps": True}


def _request(dataset: str, pinned: Mapping[str, Json], params: Json, time_range: Json) -> JobRequested:
    """The request for the export alone; only its definition and parameters are looked at."""
    held = pinned.get(dataset) or {}
    definition = Definition(
        kind="dataset", id=dataset, revision=held.get("revision", 0), body=held.get("body")
    )
    return JobRequested(
        execution_id="",
        tenant="",
        requested_at=datetime.min.replace(tzinfo=UTC),
        created_by="",
        name="",
        job_type="export",
        definition=definition,
        parameters={"params": params, "time_range": time_range},
    )


def _pointer(pointer: str, dataset: str, at: str) -> str:
    """Where the fault stands in the pipeline."""
    for prefix, place in (
        ("params", at),
        ("timeRange", f"{at}.time_range"),
        ("definition", f"datasets.{dataset}"),
    ):
        if pointer.startswith(prefix):
            return place + pointer.removeprefix(prefix)
    return f"{at}.{pointer}"


EXPORT = Kind(
    read=_read, keys=_KEYS, timeout_s=export.TIMEOUT_S, max_attempts=export.MAX_ATTEMPTS, plan=_plan
)
