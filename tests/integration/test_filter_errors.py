"""Filters that only the source can judge, and errors of rows that are no filter's fault."""

from collections.abc import Mapping
from typing import Any

import pytest

from services.executor.steps import STEPS
from services.executor.steps.outcome import Done, Fail
from tests import exporting
from tests.exporting import World
from tests.stack import Stack, transaction

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def world(stack: Stack) -> World:
    url = stack.fresh_database()
    with transaction(url) as cursor:
        cursor.execute(
            "CREATE TYPE public.mood AS ENUM ('sad', 'ok');"
            "CREATE TABLE public.typed (id int4, ref uuid, mood public.mood, secret text);"
            "INSERT INTO public.typed VALUES (1, NULL, 'ok', 'canary-row');"
            "CREATE VIEW public.cast_of AS"
            " SELECT id, 1 / (id - 1) AS part, secret::int AS bad FROM public.typed"
        )
    return World({"main": url})


def failed(world: World, dataset: Mapping[str, Any], **changes: Any) -> Fail:
    request = exporting.step(dataset, **changes)
    outcome = STEPS[request.kind].run(request, world.context())
    assert isinstance(outcome, Fail), outcome
    assert [*world.blobs.list("executions")] == []
    return outcome


TYPED = {"id": "integer", "ref": "string", "mood": "string"}
BAD_FILTERS = {
    ("id", "lt", 99999999999): (
        'filter lt on column id, "99999999999": value "99999999999" is out of range for type integer'
        " (SQLSTATE 22003)"
    ),
    ("mood", "eq", "nope"): (
        'filter eq on column mood, "nope": invalid input value for enum mood: "nope" (SQLSTATE 22P02)'
    ),
    ("ref", "eq", "nope"): (
        'filter eq on column ref, "nope": invalid input syntax for type uuid: "nope" (SQLSTATE 22P02)'
    ),
    ("mood", "in", ("ok", "nope")): (
        'filter in on column mood, 2 values: invalid input value for enum mood: "nope" (SQLSTATE 22P02)'
    ),
}


def dataset_of(table: str, columns: Mapping[str, str]) -> dict[str, Any]:
    listed = [{"name": name, "type": type_} for name, type_ in columns.items()]
    return {"source": "main", "table": table, "columns": listed, "filters": [*columns]}


@pytest.mark.parametrize(("filter_", "message"), BAD_FILTERS.items())
def test_a_value_that_only_the_source_can_judge_fails_with_its_filter_and_the_sources_sentence(
    world: World, filter_: tuple[str, str, Any], message: str
) -> None:
    column, op, value = filter_
    given = {"column": column, "op": op, "value": [*value] if isinstance(value, tuple) else value}
    outcome = failed(world, dataset_of("public.typed", TYPED), params={"filters": [given]})
    assert outcome == Fail("filter_error", message)


def test_batches_that_do_not_fit_their_column_are_named(world: World) -> None:
    dataset = {**dataset_of("public.typed", TYPED), "batch": {"column": "id"}}
    outcome = failed(world, dataset, params={"batches": ["99999999999"]})
    wanted = 'batches of column id: value "99999999999" is out of range for type integer (SQLSTATE 22003)'
    assert outcome == Fail("filter_error", wanted)


UUID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


@pytest.fixture(scope="module")
def typed_batches(world: World) -> World:
    with transaction(world.sources["main"]) as cursor:
        cursor.execute(
            "CREATE TABLE public.batched (ref uuid, mood public.mood, org text, id int4);"
            f"INSERT INTO public.batched VALUES ('{UUID}', 'ok', 'acme', 1), (NULL, 'sad', 'acme', 2)"
        )
    return world


BATCHED = {"ref": "string", "mood": "string", "org": "string", "id": "integer"}


@pytest.mark.parametrize(
    ("batch", "entries", "found"),
    [
        ({"column": "ref"}, [UUID, "nope"], "a batch of the source, found"),
        ({"column": "mood"}, ["ok", "nope"], "a batch of the source, found"),
        (
            {"column": "mood", "channel_column": "ref"},
            ["ok", "nope"],
            "a batch or a channel of the source, found",
        ),
    ],
)
def test_entries_of_batch_filters_that_fit_no_uuid_or_enum_are_no_batches_of_the_source(
    typed_batches: World, batch: dict[str, Any], entries: list[str], found: str
) -> None:
    dataset = {**dataset_of("public.batched", BATCHED), "batch": batch}
    outcome = failed(typed_batches, dataset, params={"batchFilters": entries})
    assert outcome == Fail("unknown_batch", f'batchFilters: expected {found} "nope"')


@pytest.mark.parametrize(
    ("batch", "entry", "ids"),
    [
        ({"column": "ref", "channel_column": "org"}, "acme", [UUID]),
        ({"column": "mood", "channel_column": "org"}, "acme", ["ok", "sad"]),
        ({"column": "org", "channel_column": "mood"}, "acme", ["acme"]),
    ],
)
def test_entries_of_batch_filters_that_fit_one_of_the_two_columns_are_looked_up_there(
    typed_batches: World, batch: dict[str, Any], entry: str, ids: list[str]
) -> None:
    dataset = {**dataset_of("public.batched", BATCHED), "batch": batch}
    request = exporting.step(dataset, params={"batchFilters": [entry]})
    outcome = STEPS[request.kind].run(request, World(typed_batches.sources).context())
    assert isinstance(outcome, Done), outcome
    assert outcome.output["batch_filters"]["ids"] == ids


def test_a_content_filter_that_does_not_fit_its_column_is_named(world: World) -> None:
    dataset = {**dataset_of("public.typed", TYPED), "content": {"identifier": "ref"}}
    params = {"contentFilters": {"request": {"filters": {"identifier": ["nope"]}}}}
    wanted = 'filter in on column ref, 1 values: invalid input syntax for type uuid: "nope" (SQLSTATE 22P02)'
    assert failed(world, dataset, params=params) == Fail("filter_error", wanted)


def test_a_time_range_on_a_column_that_has_no_time_is_named(world: World) -> None:
    dataset = {**dataset_of("public.typed", {**TYPED, "secret": "timestamp"}), "time_column": "secret"}
    times = {"from": "2013-01-01T00:00:00Z", "to": "2013-01-02T00:00:00Z"}
    outcome = failed(world, dataset, time_range=times)
    wanted = "operator does not exist: text >= timestamp with time zone (SQLSTATE 42883)"
    assert outcome == Fail("filter_error", f"timeRange on column secret: {wanted}")


@pytest.mark.parametrize("column", ["part", "bad"])
def test_a_fault_of_the_rows_of_a_view_is_no_filters_fault(world: World, column: str) -> None:
    """And the source's sentence about a row may quote it, so only the kind is named."""
    dataset = dataset_of("public.cast_of", {"id": "integer", column: "integer"})
    outcome = failed(world, dataset, params={"filters": [{"column": column, "op": "ge", "value": 0}]})
    kind = {
        "part": "division by zero (SQLSTATE 22012)",
        "bad": "invalid text representation (SQLSTATE 22P02)",
    }
    assert outcome.reason == "dataset_error"
    assert outcome.message == (
        f"source main, table public.cast_of: the source could not compute its rows: {kind[column]}"
    )
