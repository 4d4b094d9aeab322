"""The published description: its version, its stable names, and that every reference leads somewhere."""

from typing import Any, cast

from services.api import app
from services.api.parts import Parts

# Clients are generated from these: a name that changes breaks them.
OPERATIONS = {
    "cancelExecution",
    "deleteDataset",
    "describe",
    "describeTopics",
    "describeTopicsAsYaml",
    "getDataset",
    "getExecution",
    "getFile",
    "getStepLog",
    "headFile",
    "listDatasets",
    "listExecutionEvents",
    "listExecutions",
    "listJobRequests",
    "live",
    "metrics",
    "putDataset",
    "readJobRequest",
    "ready",
    "rerunExecution",
    "revokeLinks",
    "searchJobRequests",
    "submitExecution",
    "submitJobRequest",
}
DOCUMENT = app.create(cast(Parts, None)).openapi()


def test_operation_ids_are_stable() -> None:
    operations = [op for path in DOCUMENT["paths"].values() for op in path.values()]
    assert {operation["operationId"] for operation in operations} == OPERATIONS
    assert DOCUMENT["openapi"].startswith("3.1")


def references(node: Any) -> set[str]:
    match node:
        case dict():
            own = {node["$ref"]} if "$ref" in node else set()
            return own.union(*(references(inner) for inner in node.values()))
        case list():
            return set().union(*(references(inner) for inner in node))
        case _:
            return set()


def test_every_reference_is_defined_and_every_schema_is_used() -> None:
    defined = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references(DOCUMENT) == defined
