"""S1's jobConfig in the plan of an export: batchFilters, contentFilters, reportPath (S1 1.10)."""

from collections.abc import Mapping
from typing import Any

import pytest

from services import jobs
from services.jobs import dataset
from services.jobs.refused import Refused
from tests import exporting

DATASET: Mapping[str, Any] = {
    "source": "learning",
    "table": "public.score",
    "columns": [
        {"name": "batch_id", "type": "string"},
        {"name": "channel", "type": "string"},
        {"name": "content_id", "type": "string"},
        {"name": "title", "type": "string"},
        {"name": "made_on", "type": "date"},
        {"name": "score", "type": "integer"},
    ],
    "batch": {"column": "batch_id", "channel_column": "channel"},
    "content": {"identifier": "content_id", "name": "title", "createdOn": "made_on"},
}
DECLARED = {**DATASET, "batch": {"column": "batch_id", "values": ["b1", "b2"]}}


def planned(body: Mapping[str, Any] = DATASET, **params: Any) -> dict[str, Any]:
    (step,) = jobs.plan(exporting.job(body, params=params))
    return dict(step.parameters)


def refusals(body: Mapping[str, Any] = DATASET, **params: Any) -> list[str]:
    with pytest.raises(Refused) as caught:
        planned(body, **params)
    return [str(error) for error in caught.value.errors]


def search(**fields: Any) -> dict[str, Any]:
    return {"contentFilters": {"request": fields}}


def test_entries_are_left_for_the_worker_to_tell() -> None:
    assert planned(batchFilters=["TPD", "b1"], reportPath="p/")["batch"] == {
        "column": "batch_id",
        "type": "string",
        "channel_column": "channel",
        "entries": ["TPD", "b1"],
    }


def test_entries_of_declared_batches_need_no_source() -> None:
    assert planned(DECLARED, batchFilters=["b2"])["batch"]["values"] == ["b2"]
    assert refusals(DECLARED, batchFilters=["b3"]) == [
        'params.batchFilters[0]: unknown batch "b3"; known: b1, b2'
    ]


def test_a_search_without_entries_asks_for_every_batch_it_touches() -> None:
    assert planned(**search(filters={"identifier": "do_1"}))["batch"]["entries"] is None
    assert planned(DECLARED, **search(filters={"identifier": "do_1"}))["batch"]["values"] == ["b1", "b2"]


def test_a_search_becomes_filters_order_limit_and_columns() -> None:
    found = planned(
        batchFilters=["b1"],
        **search(
            filters={"identifier": ["do_1", "do_2"], "name": "x"},
            sort_by={"createdOn": "desc", "identifier": "asc"},
            limit=3,
            fields=["identifier"],
        ),
    )
    assert found["filters"] == [
        {"column": "content_id", "type": "string", "op": "in", "value": ["do_1", "do_2"]},
        {"column": "title", "type": "string", "op": "eq", "value": "x"},
    ]
    order = [{"column": "made_on", "descending": True}, {"column": "content_id", "descending": False}]
    assert found["contents"] == {"column": "content_id", "order": order, "limit": 3}
    assert [entry["name"] for entry in found["columns"]] == ["batch_id", "channel", "content_id", "score"]


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no list": (
        {"batchFilters": "TPD"},
        ['params.batchFilters: expected a list of 1 to 1000, found "TPD"'],
    ),
    "empty": ({"batchFilters": []}, ["params.batchFilters: expected a list of 1 to 1000, found 0 entries"]),
    "no text": (
        {"batchFilters": ["b1", 7]},
        [
            (
                "params.batchFilters[1]: expected a batch or a channel:"
                " text of 1 to 200 characters without NUL, found 7"
            )
        ],
    ),
    "twice": ({"batchFilters": ["b1", "b1"]}, ['params.batchFilters[1]: "b1" is already at index 0']),
    "both": (
        {"batchFilters": ["b1"], "batches": ["b1"]},
        ["params.batches: expected one of batches and batchFilters, found both; remove one"],
    ),
    "nothing": (
        {},
        [
            (
                "params.batches: expected a list of 1 to 1000 values of batch_id, found nothing:"
                " the dataset declares none (GET /v1/datasets/things-report)"
            )
        ],
    ),
    "search outside request": (
        {"batchFilters": ["b1"], "contentFilters": {"filters": {}}},
        ["params.contentFilters.filters: unknown field; known: request"],
    ),
    "unknown field": (
        {"batchFilters": ["b1"], **search(filters={"colour": "red"})},
        ["params.contentFilters.request.filters.colour: unknown field; known: identifier, name, createdOn"],
    ),
    "value of another type": (
        {"batchFilters": ["b1"], **search(filters={"createdOn": ["soon"]})},
        [
            (
                'params.contentFilters.request.filters.createdOn[0]: expected a date such as "2013-01-31"'
                ' for column made_on, found "soon"'
            )
        ],
    ),
    "empty list": (
        {"batchFilters": ["b1"], **search(filters={"identifier": []})},
        [
            (
                "params.contentFilters.request.filters.identifier:"
                " expected 1 to 1000 values of identifier, found 0"
            )
        ],
    ),
    "order": (
        {"batchFilters": ["b1"], **search(sort_by={"createdOn": "down"})},
        ['params.contentFilters.request.sort_by.createdOn: expected asc or desc, found "down"'],
    ),
    "limit": (
        {"batchFilters": ["b1"], **search(limit=0)},
        ["params.contentFilters.request.limit: expected a whole number from 1 to 100000, found 0"],
    ),
    "fields": (
        {"batchFilters": ["b1"], **search(fields=["identifier", "size"])},
        ['params.contentFilters.request.fields[1]: unknown field "size"; known: identifier, name, createdOn'],
    ),
    "no column left": (
        {"batchFilters": ["b1"], "columns": ["title"], **search(fields=["identifier"])},
        ["params.columns: expected at least one column that contentFilters.request.fields keeps, found none"],
    ),
    "path": (
        {"batchFilters": ["b1"], "reportPath": 5},
        ["params.reportPath: expected text of at most 200 characters without NUL, found 5"],
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_config_is_refused(case: tuple[dict[str, Any], list[str]]) -> None:
    params, expected = case
    assert refusals(**params) == expected


def test_a_dataset_without_content_or_batches_takes_neither() -> None:
    body = {key: value for key, value in DATASET.items() if key not in ("batch", "content")}
    assert refusals(body, batchFilters=["b1"], contentFilters={}) == [
        "params.contentFilters: this dataset has no content to search; remove the field",
        (
            "params.batchFilters: this dataset has no batch key; remove the field"
            " (GET /v1/datasets/things-report)"
        ),
    ]


BAD_DATASETS: dict[str, tuple[dict[str, Any], str]] = {
    "channel beside values": (
        {"batch": {"column": "batch_id", "values": ["b1"], "channel_column": "channel"}},
        "batch.channel_column: expected no channel_column beside values; remove one of them",
    ),
    "channel of another type": (
        {"batch": {"column": "batch_id", "channel_column": "score"}},
        "batch.channel_column: expected a column of type string, found score of type integer",
    ),
    "content without its key": (
        {"content": {"name": "title"}},
        "content: expected an object with at least identifier, found an object",
    ),
    "content of no column": (
        {"content": {"identifier": "content_id", "name": "nix"}},
        'content.name: unknown column "nix"; known: batch_id, channel, content_id, title, made_on, score',
    ),
}


@pytest.mark.parametrize("case", BAD_DATASETS.values(), ids=BAD_DATASETS)
def test_a_bad_dataset_is_refused(case: tuple[dict[str, Any], str]) -> None:
    changes, expected = case
    with pytest.raises(Refused) as caught:
        dataset.parse({**DATASET, **changes})
    assert [str(error) for error in caught.value.errors] == [expected]
