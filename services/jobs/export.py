"""Job type `export`: rows of a dataset as files, one per batch, plus a manifest.

    params: {batches?: [text], columns?: [name], filters?: [{column, op, value}], format?: csv,
             batchFilters?: [text], contentFilters?: {request}, reportPath?: text}
    timeRange?: {from, to}     ISO-8601 with offset; from <= time_column < to

`batchFilters`, `contentFilters` and `reportPath` are S1's (1.10). An entry of `batchFilters` is a batch or
a channel: which one, only the source knows, so the worker finds out. `reportPath` is kept for its reader.

The plan is one step that carries everything the worker needs, so that no later change of the dataset
touches an execution that has begun.
"""

from typing import Any

from services.contracts.commands import JobRequested
from services.contracts.errors import FieldError
from services.contracts.events import PlannedStep
from services.jobs import content, filters
from services.jobs import dataset as datasets
from services.jobs.dataset import BATCHES_MAX, COLUMNS_MAX, Batch, Dataset
from services.jobs.fields import Faults, Fields, listed, shown, storable
from services.jobs.refused import Refused
from services.jobs.values import instant

TIMEOUT_S = 6 * 3600
MAX_ATTEMPTS = 5
PARAMS = ("batches", "columns", "filters", "format", "batchFilters", "contentFilters", "reportPath")
ENTRY_CHARS_MAX = 200
PATH_CHARS_MAX = 200


def plan(request: JobRequested) -> tuple[PlannedStep, ...]:
    """One EXPORT step. Raises Refused with every fault of the request."""
    dataset, hint = _dataset(request)
    faults = Faults()
    outer = Fields(request.parameters, "", ("params", "time_range"), faults)
    params = outer.object("params", PARAMS)
    searched, contents, left_out = content.parse(params, dataset)
    params.text("reportPath", required=False, chars_max=PATH_CHARS_MAX)
    parameters = {
        "source": dataset.source,
        "table": dataset.table,
        "columns": _columns(params, dataset, hint, left_out),
        "filters": [*filters.parse(params, dataset, hint), *searched],
        "contents": contents,
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


def _columns(params: Fields, dataset: Dataset, hint: str, left_out: set[str]) -> list[dict[str, str]]:
    every = [column.name for column in dataset.columns]
    chosen = params.names("columns", "column", every, count_max=COLUMNS_MAX, hint=hint) or every
    if left_out.issuperset(chosen):
        message = "expected at least one column that contentFilters.request.fields keeps, found none"
        params.faults.add(params.pointer("columns"), message)
    return [
        {"name": name, "type": dataset.column(name).type.value} for name in chosen if name not in left_out
    ]


def _batch(params: Fields, dataset: Dataset, hint: str) -> dict[str, Any] | None:
    pointer = params.pointer("batches")
    if dataset.batch is None:
        for name in ("batches", "batchFilters"):
            if params.get(name) is not None:
                message = f"this dataset has no batch key; remove the field{hint}"
                params.faults.add(params.pointer(name), message)
        return None
    if params.get("batchFilters") is not None:
        return _entries(params, dataset, dataset.batch)
    found_by_content = params.get("contentFilters") is not None and not dataset.batch.values
    if found_by_content and params.get("batches") is None:
        return _to_resolve(dataset, dataset.batch, None)
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


def _entries(params: Fields, dataset: Dataset, batch: Batch) -> dict[str, Any]:
    if params.get("batches") is not None:
        message = "expected one of batches and batchFilters, found both; remove one"
        params.faults.add(params.pointer("batches"), message)
    entries: dict[str, int] = {}
    known = frozenset(batch.values)
    for pointer, item in params.items("batchFilters", count_max=BATCHES_MAX):
        if not isinstance(item, str) or not 1 <= len(item) <= ENTRY_CHARS_MAX or not storable(item):
            wanted = f"a batch or a channel: text of 1 to {ENTRY_CHARS_MAX} characters without NUL"
            params.faults.add(pointer, f"expected {wanted}, found {shown(item)}")
        elif item in entries:
            params.faults.add(pointer, f"{shown(item)} is already at index {entries[item]}")
        elif known and item not in known:
            params.faults.add(pointer, f"unknown batch {shown(item)}; known: {listed(batch.values)}")
        else:
            entries[item] = len(entries)
    if batch.values:
        return {"column": batch.column, "values": [*entries], "entries": [*entries]}
    return _to_resolve(dataset, batch, [*entries])


def _to_resolve(dataset: Dataset, batch: Batch, entries: list[str] | None) -> dict[str, Any]:
    """No `values` yet: the worker makes them of `entries`, or of every matching row when there are none."""
    type_ = dataset.column(batch.column).type.value
    return {"column": batch.column, "type": type_, "channel_column": batch.channel_column, "entries": entries}


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
