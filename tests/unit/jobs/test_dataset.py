"""Datasets: what is taken, and the answer to everything that is not."""

from typing import Any

import pytest

from services.jobs.dataset import Batch, Column, Dataset, parse
from services.jobs.refused import Refused
from services.jobs.values import ColumnType

FULL: dict[str, Any] = {
    "source": "flights",
    "table": "public.flights",
    "description": "Flights of 2013",
    "columns": [
        {"name": "carrier", "type": "string", "description": "two-letter code"},
        {"name": "year", "type": "integer"},
        {"name": "day", "type": "date"},
        {"name": "time_hour", "type": "timestamp"},
    ],
    "batch": {"column": "carrier", "values": ["9E", "AA"]},
    "filters": ["carrier", "day"],
    "time_column": "time_hour",
    "order_by": ["time_hour", "carrier"],
    "formats": ["csv"],
    "limits": {"max_rows": 1_000_000},
}


def refusals(body: Any) -> list[str]:
    with pytest.raises(Refused) as caught:
        parse(body)
    return [str(error) for error in caught.value.errors]


def test_a_full_dataset_is_read() -> None:
    assert parse(FULL) == Dataset(
        source="flights",
        table="public.flights",
        columns=(
            Column("carrier", ColumnType.STRING, "two-letter code"),
            Column("year", ColumnType.INTEGER),
            Column("day", ColumnType.DATE),
            Column("time_hour", ColumnType.TIMESTAMP),
        ),
        description="Flights of 2013",
        batch=Batch("carrier", ("9E", "AA")),
        filters=("carrier", "day"),
        time_column="time_hour",
        order_by=("time_hour", "carrier"),
        formats=("csv",),
        max_rows=1_000_000,
    )


def test_the_least_dataset_has_one_column() -> None:
    body = {"source": "a", "table": "b.c", "columns": [{"name": "d", "type": "float"}]}
    assert parse(body) == Dataset(source="a", table="b.c", columns=(Column("d", ColumnType.FLOAT),))


NAME_RULE = "1 to 108 of A-Z a-z 0-9 . _ - beginning with a letter or digit (it names a file)"
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key": (
        {"colums": []},
        [
            (
                "colums: unknown field; known: source, table, description, columns, batch, filters,"
                " time_column, order_by, formats, limits, content; did you mean columns?"
            )
        ],
    ),
    "no source": (
        {"source": None},
        ["source: expected the name of a source: a-z 0-9 _, at most 63, found nothing"],
    ),
    "source as URL": (
        {"source": "postgresql://u:p@h/d"},
        ['source: expected the name of a source: a-z 0-9 _, at most 63, found "postgresql://u:p@h/d"'],
    ),
    "table without schema": (
        {"table": "flights"},
        ['table: expected schema.name, each of A-Z a-z 0-9 _ and at most 63 long, found "flights"'],
    ),
    "table with database": (
        {"table": "db.public.flights"},
        ['table: expected schema.name, each of A-Z a-z 0-9 _ and at most 63 long, found "db.public.flights"'],
    ),
    "system table": (
        {"table": "pg_catalog.pg_authid"},
        ["table: schema pg_catalog belongs to PostgreSQL and is not exported"],
    ),
    "system table in capitals": (
        {"table": "PG_TOAST.pg_toast_1"},
        ["table: schema PG_TOAST belongs to PostgreSQL and is not exported"],
    ),
    "information schema": (
        {"table": "information_schema.tables"},
        ["table: schema information_schema belongs to PostgreSQL and is not exported"],
    ),
    "no columns": (
        {"columns": [], "batch": None, "filters": None, "time_column": None, "order_by": None},
        ["columns: expected a list of 1 to 500, found 0 entries"],
    ),
    "column type": (
        {"columns": [*FULL["columns"], {"name": "x", "type": "text"}]},
        [
            (
                'columns[4].type: unknown type "text"; known: string, integer, decimal, float, boolean, date,'
                " timestamp"
            )
        ],
    ),
    "column twice": (
        {"columns": [*FULL["columns"], {"name": "day", "type": "date"}]},
        ['columns[4].name: column "day" stands twice in the list'],
    ),
    "column is no object": (
        {"columns": [*FULL["columns"], "day"]},
        [
            'columns[4]: expected an object, found "day"',
            "columns[4].name: expected a column name of A-Z a-z 0-9 _, at most 63 long, found nothing",
            (
                "columns[4].type: unknown type nothing; known: string, integer, decimal, float, boolean,"
                " date, timestamp"
            ),
        ],
    ),
    "batch column": (
        {"batch": {"column": "carier"}},
        ['batch.column: unknown column "carier"; known: carrier, year, day, time_hour'],
    ),
    "batch by instant": (
        {"batch": {"column": "time_hour"}},
        [
            (
                "batch.column: expected a column of type string or integer or date,"
                " found time_hour of type timestamp"
            )
        ],
    ),
    "batch values of YAML": (
        {"batch": {"column": "year", "values": [2013, "2014", "02015", "x"]}},
        [
            f"batch.values[0]: expected {NAME_RULE}, found 2013",
            'batch.values[2]: expected text that is a plain integer, as the batch column is, found "02015"',
            'batch.values[3]: expected text that is a plain integer, as the batch column is, found "x"',
        ],
    ),
    "batch date": (
        {"batch": {"column": "day", "values": ["2013-02-28", "2013-02-29"]}},
        ['batch.values[1]: expected text that is a plain date, as the batch column is, found "2013-02-29"'],
    ),
    "batch values collide": (
        {"batch": {"column": "carrier", "values": ["ua", "UA", "ua"]}},
        [
            'batch.values[1]: "UA" gives the same file name as "ua"',
            'batch.values[2]: "ua" stands twice in the list',
        ],
    ),
    "too many batches": (
        {"batch": {"column": "carrier", "values": [str(n) for n in range(1001)]}},
        ["batch.values: expected a list of 1 to 1000, found 1001 entries"],
    ),
    "filter": (
        {"filters": ["dep"]},
        ['filters[0]: unknown column "dep"; known: carrier, year, day, time_hour'],
    ),
    "time column": (
        {"time_column": "carrier"},
        ["time_column: expected a column of type date or timestamp, found carrier of type string"],
    ),
    "format": ({"formats": ["xlsx"]}, ['formats[0]: unknown format "xlsx"; known: csv']),
    "limit": (
        {"limits": {"max_rows": 0}},
        ["limits.max_rows: expected a whole number from 1 to 1000000000000, found 0"],
    ),
    "limit is a bool": (
        {"limits": {"max_rows": True}},
        ["limits.max_rows: expected a whole number from 1 to 1000000000000, found true"],
    ),
    "description": (
        {"description": "a\0b"},
        ['description: expected text of at most 1000 characters without NUL, found "a\\u0000b"'],
    ),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_dataset_is_refused(case: tuple[dict[str, Any], list[str]]) -> None:
    changes, expected = case
    assert refusals({**FULL, **changes}) == expected


IDENTIFIERS = {
    "quote": 'day"',
    "comment": "day--",
    "union": "day UNION SELECT 1",
    "stacked": "day; DROP TABLE x",
    "function call": "version()",
    "dotted name": "public.day",
    "quoted identifier": '"day"',
    "homoglyph": "dаy",  # a Cyrillic letter
    "empty": "",
    "digit first": "1day",
    "newline": "day\n",
    "NUL": "day\0",
    "64 long": "d" * 64,
    "wildcard": "*",
    "number": 1,
    "list": ["day"],
}


@pytest.mark.parametrize("name", IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_an_identifier_is_an_identifier_everywhere(name: Any) -> None:
    column = {"columns": [{"name": name, "type": "string"}]}
    least = {"source": "a", "table": "b.c", "columns": [{"name": "d", "type": "float"}]}
    assert refusals({**least, **column})[0].startswith("columns[0].name: expected a column name")
    assert refusals({**least, "table": f"public.{name}"})[0].startswith("table: expected schema.name")
    assert refusals({**least, "table": f"{name}.flights"})[0].startswith("table: expected schema.name")
    for field in ("filters", "order_by"):
        assert refusals({**least, field: [name]})[0].startswith(f"{field}[0]: unknown column")
    for field in ("batch", "time_column"):
        body = {"column": name} if field == "batch" else name
        if name == "" and field == "time_column":
            continue
        assert "unknown column" in refusals({**least, field: body})[0]


FILE_NAMES = {
    "parent": "../x",
    "encoded": "..%2fx",
    "double encoded": "%252e%252e",
    "backslash": "..\\x",
    "full width": "．．",
    "absolute": "/etc/passwd",
    "drive": "C:x",
    "UNC": "\\\\server\\share",
    "NUL": "a\0b",
    "newline": "a\nb",
    "newline at the end": "a\n",
    "trailing space": "a ",
    "109 bytes": "a" * 109,
    "5,000 bytes": "a" * 5000,
    "NFD": "e\u0301",
    "NFC": "é",
    "other tenant's prefix": "../../globex/x",
    "empty": "",
    "dot": ".",
    "leading dash": "-rf",
    "leading dot": ".htaccess",
    "Content-Disposition": 'x"; filename="y',
    "archive member": "a/../../b",
    "formula": "=1+1",
    "number": 9,
    "null": None,
    "object": {"a": 1},
}


@pytest.mark.parametrize("name", FILE_NAMES.values(), ids=FILE_NAMES)
def test_a_batch_that_gives_no_safe_file_name_is_refused(name: Any) -> None:
    (error,) = refusals({**FULL, "batch": {"column": "carrier", "values": [name]}})
    assert error.startswith(f"batch.values[0]: expected {NAME_RULE}, found ")


@pytest.mark.parametrize("name", ["NUL", "con", "a.", "a..b", "x" * 108, "9E", "2013-01-01", "a_b-c.d"])
def test_a_batch_with_a_harmless_file_name_is_taken(name: str) -> None:
    dataset = parse({**FULL, "batch": {"column": "carrier", "values": [name]}})
    assert dataset.batch == Batch("carrier", (name,))


def test_all_faults_are_told_at_once_under_the_given_place() -> None:
    with pytest.raises(Refused) as caught:
        parse({"table": 1, "batch": {"values": "x"}}, "definition.body")
    assert [error.pointer for error in caught.value.errors] == [
        "definition.body.source",
        "definition.body.table",
        "definition.body.columns",
        "definition.body.batch.column",
        "definition.body.batch.values",
    ]


@pytest.mark.parametrize("body", [None, [], "text", 1, True])
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    assert refusals(body)[0].startswith("body: expected an object, found")


def test_a_flood_of_unknown_fields_gets_a_short_answer() -> None:
    errors = refusals({**FULL, **{f"x{n}": n for n in range(10_000)}})
    assert len(errors) == 21
    assert errors[-1] == "body: 9980 more unknown fields"


def test_long_and_unprintable_values_are_shown_short() -> None:
    (error,) = refusals({**FULL, "table": "x" * 100_000})
    assert len(error) < 250
    (error,) = refusals({**FULL, "table": "\ud800"})
    assert error.encode("utf-8")
