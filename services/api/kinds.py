"""Kinds of definitions: what api checks of a body, and what of it is stored. A kind is one line in KINDS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from services.api import definitions
from services.api.definitions import Name
from services.contracts.errors import FieldError
from services.jobs import dataset, pipeline
from services.jobs.pipeline.load import PINNED, as_object
from services.jobs.refused import Refused

STORED_BYTES_MAX = 192 * 1024
"""Of a pipeline with its datasets: a request holds it, and has to stay below REQUEST_BYTES_MAX."""

Check = Callable[[Any], None]
"""`check(body)` of a pipeline. Raises Refused with every fault."""

Prepare = Callable[[Any, str, Any, Check], Any]
"""`prepare(cursor, tenant, body, check)`: the body to store. Raises Refused with every fault."""

Sources = Callable[[Any], list[tuple[str, str]]]
"""`sources(body)`: the sources that a prepared body reads, each after the pointer to where it is named."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` as records have it, `plural` as routes have it, `title` as operation ids have it."""

    name: str
    plural: str
    title: str
    prepare: Prepare
    sources: Sources

    @property
    def route(self) -> str:
        """The path of the list."""
        return f"/v1/{self.plural}"


def _dataset(_: Any, tenant: str, body: Any, check: Check) -> Any:
    dataset.parse(body)
    return body


def _pipeline(cursor: Any, tenant: str, body: Any, check: Check) -> Any:
    """The body with the datasets that its steps export, as they are now: what runs is what is read."""
    pinned = {}
    for id in sorted(pipeline.datasets_named(body)):
        row = definitions.current(cursor, Name(tenant, "dataset", id))
        if row is not None:
            pinned[id] = {"revision": row.revision, "body": row.body}
    whole = pipeline.with_datasets(body, pinned)
    if not pinned and pipeline.datasets_named(body):
        whole = {**as_object(body), PINNED: {}}  # each one that is missing is a fault of its own
    return checked_pipeline(whole, check)


def checked_pipeline(body: Any, check: Check) -> Any:
    """A body that may be stored. Raises Refused."""
    check(body)
    size = len(msgspec.json.encode(body))
    if size > STORED_BYTES_MAX:
        wanted = f"at most {STORED_BYTES_MAX} bytes of JSON with the datasets that its steps export"
        raise Refused((FieldError("body", f"expected {wanted}, found {size}"),))
    return body


def _source(body: Any) -> list[tuple[str, str]]:
    return [("source", body["source"])]


def _pinned_sources(body: Any) -> list[tuple[str, str]]:
    pinned = as_object(body).get(PINNED) or {}
    return [(f"{PINNED}.{id}.source", held["body"]["source"]) for id, held in pinned.items()]


DATASET = Kind("dataset", "datasets", "Dataset", _dataset, _source)
PIPELINE = Kind("pipeline", "pipelines", "Pipeline", _pipeline, _pinned_sources)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (DATASET, PIPELINE)}
