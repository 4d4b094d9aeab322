"""Job type `export`: rows of a dataset as files, one per batch, plus a manifest.

    params: {batches?: [text], columns?: [name], filters?: [{column, op, value}], format?: csv}
    timeRange?: {from, to}     ISO-8601 with offset; from <= time_column < to

The plan is one step that carries everything the worker needs, so that no later change of the dataset
touches an execution that has begun.
"""

from typing import Any

from services.contracts.commands import JobRequested
from services.contracts.errors import FieldError
from services.contracts.events import PlannedStep
from services.jobs import dataset as datasets
from services.jobs import filters
from services.jobs.dataset import BATCHES_MAX, COLUMNS_MAX, Dataset
from services.jobs.fields import Faults, Fields, listed, shown
from services.jobs.refused import Refused
from services.jobs.values import instant

TIMEOUT_S = 6 * 3600
MAX_ATTEMPTS = 5
PARAMS = ("batches", "columns", "filters", "format")


def plan(request: JobRequested) -> tuple[PlannedStep, ...]:
    """One EXPORT step. Raises Refused with every fault of the request."""
    dataset, hint = _dataset(request)
    faults = Faults()
    outer = Fields(request.parameters, "", ("params", "time_range"), faults)
    params = outer.object("params", PARAMS)
    parameters = {
        "source": dataset.source,
        "table": dataset.table,
        "columns": _columns(params, dataset, hint),
        "filters": filters.parse(params, dataset, hint),
        "time": _time(outer.get("time_range"), dataset, faults),
        "batch": _batch(params, dataset, hint),
        "order_by": list(dataset.order_by),
        "format": _format(params, dataset, hint),
        "max_rows": dataset.max_rows,
    }
    faults.raise_if_any()
    return (
        PlannedStep(
            name="export",
            kind="EXPORT",
            parameters=parameters,
            timeout_s=TIMEOUT_S,
            max_attempts=MAX_ATTEMPTS,
        ),
    )


def _dataset(request: JobRequested) -> tuple[Dataset, str]:
    definition = request.definition
    if definition is None or definition.kind != "dataset":
        message = "expected the id of a dataset, found nothing; GET /v1/datasets lists them"
        raise Refused((FieldError("dataset", message),))
    return datasets.parse(definition.body, "definition.body"), f" (GET /v1/datasets/{definition.id})"


def _columns(params: Fields, dataset: Dataset, hint: str) -> list[dict[str, str]]:
    every = [column.name for column in dataset.columns]
    chosen = params.names("columns", "column", every, count_max=COLUMNS_MAX, hint=hint) or every
    return [{"name": name, "type": dataset.column(name).type.value} for name in chosen]


def _batch(params: Fields, dataset: Dataset, hint: str) -> dict[str, Any] | None:
    pointer = params.pointer("batches")
    if dataset.batch is None:
        if params.get("batches") is not None:
            params.faults.add(pointer, f"this dataset has no batch key; remove the field{hint}")
        return None
    values: tuple[str, ...]
    if params.get("batches") is None:
        values = dataset.batch.values
        if not values:
            wanted = f"a list of 1 to {BATCHES_MAX} values of {dataset.batch.column}"
            params.faults.add(pointer, f"expected {wanted}, found nothing: the dataset declares none{hint}")
    elif dataset.batch.values:
        values = params.names("batches", "batch", dataset.batch.values, count_max=BATCHES_MAX, hint=hint)
    else:
        values = datasets.batch_values(params, "batches", dataset.column(dataset.batch.column).type)
    return {"column": dataset.batch.column, "values": list(values)}


def _time(value: Any, dataset: Dataset, faults: Faults) -> dict[str, str] | None:
    if value is None:
        return None
    if dataset.time_column is None:
        faults.add("timeRange", "this dataset has no time column; remove the field")
        return None
    fields = Fields(value, "timeRange", ("from", "to"), faults)
    ends = {name: instant(fields.get(name)) for name in ("from", "to")}
    for name, end in ends.items():
        if end is None:
            wanted = 'an instant with offset such as "2013-01-31T05:00:00Z"'
            faults.add(fields.pointer(name), f"expected {wanted}, found {shown(fields.get(name))}")
    start, end = ends["from"], ends["to"]
    if start is None or end is None:
        return None
    if start >= end:
        faults.add("timeRange.to", f"expected an instant after {start.isoformat()}, found {end.isoformat()}")
    return {"column": dataset.time_column, "from": start.isoformat(), "to": end.isoformat()}


def _format(params: Fields, dataset: Dataset, hint: str) -> str:
    value = params.get("format")
    if value is None:
        return dataset.formats[0]
    if not isinstance(value, str) or value not in dataset.formats:
        known = listed(dataset.formats)
        params.faults.add(params.pointer("format"), f"unknown format {shown(value)}; known: {known}{hint}")
    return str(value)
