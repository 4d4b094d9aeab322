"""docs/filters.md against the code: its tables, and its examples planned."""

import json
import re
from typing import Any

import pytest

from services import jobs
from services.executor.steps import source
from services.jobs.filters import OPERATORS, WITHOUT_VALUE
from services.jobs.values import ColumnType
from tests import exporting
from tests.contract.catalogue import FOLDER

PAGE = (FOLDER.parent / "docs" / "filters.md").read_text(encoding="utf-8")
COLUMNS = {"carrier": "string", "distance": "integer", "dep_time": "integer"}


def table(heading: str) -> list[list[str]]:
    text = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def planned(columns: dict[str, str], filters: Any) -> Any:
    dataset = {
        "source": "flights",
        "table": "public.flights",
        "columns": [{"name": name, "type": type_} for name, type_ in columns.items()],
        "filters": [*columns],
    }
    (step,) = jobs.plan(exporting.job(dataset, params={"filters": filters}))
    return step.parameters["filters"]


def test_the_example_is_planned() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    filters = json.loads(example)["filters"]
    assert [entry["op"] for entry in planned(COLUMNS, filters)] == [entry["op"] for entry in filters]


def test_every_operator_has_its_row() -> None:
    rows = {row[0].strip("`"): row[2:] for row in table("Operators")}
    assert [*rows] == [*OPERATORS[ColumnType.STRING]]
    for op, (takes, columns) in rows.items():
        assert (takes == "no value") == (op in WITHOUT_VALUE)
        assert (columns == "all but boolean") == (op not in OPERATORS[ColumnType.BOOLEAN])


def test_every_type_has_its_row() -> None:
    assert [row[0].strip("`") for row in table("Values")] == [*ColumnType]


@pytest.mark.parametrize("row", table("Values"), ids=lambda row: row[0])
def test_the_example_of_a_type_is_a_value_of_it(row: list[str]) -> None:
    value = json.loads(row[2].strip("`"))
    (entry,) = planned({"c": row[0].strip("`")}, [{"column": "c", "op": "eq", "value": value}])
    assert entry["value"].strip('"')


def test_the_settings_of_a_file_are_those_of_the_session() -> None:
    named = re.findall(r"SET LOCAL (\w+)", source._SETTINGS.decode())
    of_rows = {"max_parallel_workers_per_gather", "idle_in_transaction_session_timeout"}
    assert {name for name in named if f"`{name}`" not in PAGE} == of_rows
