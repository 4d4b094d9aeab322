"""Filters: operators and values of every column type, taken and refused."""

from typing import Any

import pytest

from services import jobs
from services.contracts.commands import JobRequested
from services.jobs.refused import Refused
from tests import exporting

TYPES = {
    "carrier": "string",
    "flight": "integer",
    "price": "decimal",
    "speed": "float",
    "late": "boolean",
    "day": "date",
    "at": "timestamp",
}
DATASET = {
    "source": "flights",
    "table": "public.flights",
    "columns": [{"name": name, "type": type_} for name, type_ in TYPES.items()],
    "filters": [*TYPES],
}


def refusals(request: JobRequested) -> list[str]:
    with pytest.raises(Refused) as caught:
        jobs.plan(request)
    return [str(error) for error in caught.value.errors]


def value_of(filter_: dict[str, Any]) -> Any:
    (step,) = jobs.plan(exporting.job(DATASET, params={"filters": [filter_]}))
    return step.parameters["filters"][0]["value"]


def test_no_filters_are_an_empty_list_too() -> None:
    (empty,) = jobs.plan(exporting.job(DATASET, params={"filters": []}))
    (absent,) = jobs.plan(exporting.job(DATASET))
    assert empty == absent


ORDERED = "eq, ne, lt, le, gt, ge, in, is_null, is_not_null"


@pytest.mark.parametrize(
    ("op", "shown"),
    [
        ("~", '"~"'),
        ("similar to", '"similar to"'),
        ("(a+)+$", '"(a+)+$"'),
        ("like", '"like"'),
        ("raw", '"raw"'),
        ("= 1 OR 1", '"= 1 OR 1"'),
        ("EQ", '"EQ"'),
        ("", '""'),
        (None, "nothing"),
        (["eq"], "a list"),
    ],
)
def test_an_operator_is_one_of_the_list(op: Any, shown: str) -> None:
    request = exporting.job(DATASET, params={"filters": [{"column": "flight", "op": op, "value": 1}]})
    expected = f"params.filters[0].op: unknown operator {shown} for integer columns; known: {ORDERED}"
    assert refusals(request) == [expected]


def test_booleans_have_no_order() -> None:
    request = exporting.job(DATASET, params={"filters": [{"column": "late", "op": "lt", "value": True}]})
    expected = 'unknown operator "lt" for boolean columns; known: eq, ne, in, is_null, is_not_null'
    assert refusals(request) == [f"params.filters[0].op: {expected}"]


GOOD_VALUES = [
    ("carrier", "UA", "UA"),
    ("carrier", "", ""),
    ("carrier", "%_'\"\\", "%_'\"\\"),
    ("carrier", "🛫 e\u0301", "🛫 e\u0301"),
    ("carrier", "x" * 4096, "x" * 4096),
    ("flight", 0, "0"),
    ("flight", -(2**63), str(-(2**63))),
    ("flight", 2**63 - 1, str(2**63 - 1)),
    ("price", 1, "1"),
    ("price", 0.1, "0.1"),
    ("price", "12.50", "12.50"),
    ("price", "-0.000000000000000001", "-0.000000000000000001"),
    ("speed", 1, "1.0"),
    ("speed", 1e300, "1e+300"),
    ("late", False, "false"),
    ("day", "2013-02-28", "2013-02-28"),
    ("at", "2013-01-01T05:00:00Z", "2013-01-01T05:00:00+00:00"),
    ("at", "2013-01-01 05:00+05:30", "2012-12-31T23:30:00+00:00"),
    ("at", "2013-01-01T05:00:00.123456-05:00", "2013-01-01T10:00:00.123456+00:00"),
    ("at", "2013-01-01t05:00:00.123456789z", "2013-01-01T05:00:00.123456+00:00"),
    ("at", "2013-01-01T05:00:00.5+0530", "2012-12-31T23:30:00.500000+00:00"),
]


@pytest.mark.parametrize(("column", "value", "expected"), GOOD_VALUES)
def test_a_value_that_fits_is_taken(column: str, value: Any, expected: str) -> None:
    filter_ = {"column": column, "op": "eq", "value": value}
    assert value_of(filter_) == expected
    filter_ = {"column": column, "op": "in", "value": [value]}
    assert value_of(filter_) == [expected]


BAD_VALUES = [
    ("carrier", None),
    ("carrier", 1),
    ("carrier", True),
    ("carrier", ["UA"]),
    ("carrier", {"a": 1}),
    ("carrier", "a\0b"),
    ("carrier", "\ud800"),
    ("carrier", "x" * 4097),
    ("carrier", "x" * 1_000_000),
    ("flight", True),
    ("flight", "7"),
    ("flight", 7.0),
    ("flight", 2**63),
    ("flight", 10**5000),
    ("flight", float("nan")),
    ("price", "1e5"),
    ("price", "NaN"),
    ("price", "１２"),
    ("price", "1" * 101),
    ("price", float("inf")),
    ("price", True),
    ("speed", "1.0"),
    ("speed", float("nan")),
    ("speed", float("-inf")),
    ("speed", 10**400),
    ("late", 1),
    ("late", "true"),
    ("day", "2013-02-29"),
    ("day", "2013-1-1"),
    ("day", "20130101"),
    ("day", "2013-W01-1"),
    ("day", "99999-01-01"),
    ("day", "２013-01-01"),
    ("day", "today"),
    ("at", "2013-01-01T05:00:00"),
    ("at", "2013-01-01"),
    ("at", "now"),
    ("at", "2013-01-01T25:00:00Z"),
    ("at", "2013-01-01T05:00:00+99:00"),
    ("at", "0001-01-01T00:00:00+14:00"),
    ("at", "9999-12-31T23:59:59-14:00"),
    ("at", "2013-01-01T05:00:00 Europe/Berlin"),
    ("at", 1356998400),
]


@pytest.mark.parametrize(
    ("column", "value"),
    BAD_VALUES,
    ids=lambda value: repr(value)[:40] if not isinstance(value, int) else "number",
)
def test_a_value_that_does_not_fit_is_refused(column: str, value: Any) -> None:
    for op, pointer in (("eq", "value"), ("in", "value[0]")):
        body = value if op == "eq" else [value]
        request = exporting.job(DATASET, params={"filters": [{"column": column, "op": op, "value": body}]})
        (error,) = refusals(request)
        assert error.startswith(f"params.filters[0].{pointer}: expected ")
        assert f" for column {column}, found " in error
        assert len(error) < 300
        assert error.encode("utf-8")


@pytest.mark.parametrize("value", [None, "UA", [], ["x"] * 1001, ["x"] * 10_000, {"0": "x"}])
def test_in_takes_a_bounded_list(value: Any) -> None:
    request = exporting.job(DATASET, params={"filters": [{"column": "carrier", "op": "in", "value": value}]})
    (error,) = refusals(request)
    assert error.startswith("params.filters[0].value: expected a list of 1 to 1000, found")
