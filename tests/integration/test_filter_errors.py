"""Filters that only the source can judge, and errors of rows that are no filter's fault."""

from collections.abc import Mapping
from typing import Any

import pytest

from services.executor.steps import STEPS
from services.executor.steps.outcome import Fail
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
