"""The published description: its version, its stable names, and that every reference leads somewhere."""

import re
from typing import Any, cast

import pytest
from fastapi.routing import APIRoute

from services.api import app
from services.api.parts import Parts
from tests.service.api.statuses import headers_read, possible

# Clients are generated from these: a name that changes breaks them.
OPERATIONS = {
    "addHook",
    "amendRequest",
    "approveStep",
    "cancelExecution",
    "cancelRequest",
    "createRequest",
    "deleteAction",
    "deleteDataset",
    "deleteHook",
    "deletePipeline",
    "deleteService",
    "describe",
    "describeTopics",
    "describeTopicsAsYaml",
    "getDataset",
    "getExecution",
    "getFile",
    "getPipeline",
    "getRequest",
    "getStepLog",
    "headFile",
    "listApprovals",
    "listDatasetRevisions",
    "listDatasets",
    "listExecutionEvents",
    "listExecutions",
    "listJobRequests",
    "listPipelineRevisions",
    "listPipelines",
    "listRequests",
    "pauseRequest",
    "putAction",
    "putDataset",
    "putPipeline",
    "putService",
    "readJobRequest",
    "rejectStep",
    "remarkStep",
    "rerunExecution",
    "rerunRequest",
    "resumeRequest",
    "revokeLinks",
    "searchJobRequests",
    "startRequest",
    "submitExecution",
    "submitJobRequest",
    "whoAmI",
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


ROUTES = {
    route.operation_id: route
    for route in app.create(cast(Parts, None)).routes
    if isinstance(route, APIRoute) and route.include_in_schema
}
OPERATION = {
    operation["operationId"]: (path, method, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
# What a range or a tag asks for is decided in numbers, which no reading of the source finds.
BY_RANGE = {"getFile": {206, 304, 416}, "headFile": {304}}


@pytest.mark.parametrize("id", sorted(OPERATIONS))
def test_a_summary_is_a_sentence_of_its_own(id: str) -> None:
    operation, name = OPERATION[id][2], getattr(ROUTES[id].endpoint, "__name__", "")
    assert operation["summary"] != name.replace("_", " ").title(), "give the route a docstring"
    assert re.fullmatch(r"[A-Z][^\n]{14,119}[^.\n]", operation["summary"])
    assert operation["summary"] not in operation.get("description", "")


@pytest.mark.parametrize("id", sorted(OPERATIONS))
def test_an_operation_is_its_route(id: str) -> None:
    path, method, _ = OPERATION[id]
    assert (path, {method.upper()}) == (ROUTES[id].path, ROUTES[id].methods)


@pytest.mark.parametrize("id", sorted(OPERATIONS))
def test_every_status_that_the_code_can_give_is_described_and_no_other_fault(id: str) -> None:
    described = {int(status) for status in OPERATION[id][2]["responses"]} - BY_RANGE.get(id, set())
    found = possible(ROUTES[id])
    assert found <= described, "add it to services/api/openapi_problems.py or to the route's responses"
    assert {status for status in described if status >= 300} <= found, "no code answers so"


@pytest.mark.parametrize("id", sorted(OPERATIONS))
def test_every_parameter_that_the_code_reads_is_described(id: str) -> None:
    described: dict[str, set[str]] = {}
    for parameter in OPERATION[id][2].get("parameters", ()):
        described.setdefault(parameter["in"], set()).add(parameter["name"].lower())
    read = (
        headers_read(ROUTES[id]) if id != "headFile" else {"if-none-match"}
    )  # a range of HEAD means nothing
    assert described.get("header", set()) == read
    assert described.get("path", set()) == set(re.findall(r"{(\w+)}", ROUTES[id].path))


def test_other_paths_are_other_names_of_described_routes() -> None:
    every = [route for route in app.create(cast(Parts, None)).routes if isinstance(route, APIRoute)]
    described = {route.endpoint for route in every if route.include_in_schema}
    assert {route.endpoint for route in every} == described
