"""Which batches an export is about, when only the source can tell (S1's batchFilters).

An entry that is the id of a batch stands for that batch; any other one is a channel and stands for those of
its batches that have rows. Without entries it is every batch that has rows. Rows count that pass the
export's filters, and all of it is read in the export's own snapshot.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from services.contracts.commands import StepRequested
from services.executor.steps import query
from services.executor.steps.outcome import Fail
from services.executor.steps.source import Ended, Snapshot
from services.jobs.dataset import BATCH_NAME, BATCH_NAME_RULE, BATCHES_MAX
from services.jobs.fields import shown
from services.jobs.values import ColumnType, batch_text


def resolve(snap: Snapshot, request: StepRequested) -> StepRequested:
    """The request with the batches' ids as `values` and what they are in `found`. Raises Ended."""
    batch = request.parameters["batch"]
    if batch is None or "entries" not in batch:
        return request
    if "values" in batch:  # the dataset declares them
        found = {"ids": batch["values"], "channels": []}
    else:
        found = _found(snap, request.parameters, batch)
        _check(found["ids"])
    parameters = {**request.parameters, "batch": {**batch, "values": found["ids"], "found": found}}
    return replace(request, parameters=parameters)


def found(request: StepRequested) -> Mapping[str, Any]:
    """What a resolved request adds to the step's output: `{batch_filters: {ids, channels}}`, or nothing."""
    batch = request.parameters["batch"]
    return {} if batch is None or "found" not in batch else {"batch_filters": batch["found"]}


def _found(snap: Snapshot, parameters: query.Parameters, batch: Mapping[str, Any]) -> dict[str, list[str]]:
    entries = batch["entries"]
    if entries is None:
        return {"ids": _texts(snap, query.batches(parameters)), "channels": []}
    of_type = [entry for entry in entries if batch_text(ColumnType(batch["type"]), entry)]
    ids = _known(snap, parameters, batch["column"], of_type)
    others = [entry for entry in entries if entry not in ids]
    channels: set[str] = set()
    if batch["channel_column"] is not None:
        channels = _known(snap, parameters, batch["channel_column"], others)
    if unknown := [entry for entry in others if entry not in channels]:
        kind = "a batch" if batch["channel_column"] is None else "a batch or a channel"
        message = f"batchFilters: expected {kind} of the source, found {', '.join(map(shown, unknown[:3]))}"
        raise Ended(Fail("unknown_batch", message))
    for channel in (entry for entry in entries if entry in channels):
        ids.update(_texts(snap, query.batches(parameters, channel)))
    return {"ids": sorted(ids), "channels": [entry for entry in entries if entry in channels]}


def _known(snap: Snapshot, parameters: query.Parameters, column: str, entries: Sequence[str]) -> set[str]:
    """Those of the entries that the column holds. What does not fit its type (a uuid's, an enum's), which the
    dataset's catalogue cannot know, it does not hold."""

    def select(some: Sequence[str]) -> bytes:
        return query.render(snap.cursor, query.known(parameters, column, some))

    if snap.fault(select(entries)):
        entries = [entry for entry in entries if not snap.fault(select([entry]))]
    return {str(value) for value in snap.column(select(entries))}


def _texts(snap: Snapshot, select: Any) -> list[str]:
    return [str(value) for value in snap.column(query.render(snap.cursor, select))]


def _check(ids: Iterable[str]) -> None:
    """Each is the name of a file of its own."""
    seen: dict[str, str] = {}
    for id in ids:
        if not BATCH_NAME.fullmatch(id):
            raise Ended(Fail("batch_name", f"batch {shown(id)} of the source: expected {BATCH_NAME_RULE}"))
        if seen.setdefault(id.lower(), id) != id:
            message = f"batches {shown(id)} and {shown(seen[id.lower()])} give the same file name"
            raise Ended(Fail("batch_name", message))
    if len(seen) > BATCHES_MAX:
        message = f"expected at most {BATCHES_MAX} batches, found more; name fewer channels or contents"
        raise Ended(Fail("too_many_batches", message))
