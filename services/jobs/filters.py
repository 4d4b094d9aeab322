"""Filters of a request: a column that the dataset opens for filtering, an operator, and a bounded value."""

from collections.abc import Mapping
from typing import Any

from services.jobs.dataset import Column, Dataset
from services.jobs.fields import Faults, Fields, listed, shown
from services.jobs.values import EXPECTED, ColumnType, literal

FILTERS_MAX = 50
IN_VALUES_MAX = 1000
VALUE_CHARS_MAX = 200_000

_ANY = ("eq", "ne", "in", "is_null", "is_not_null")
_ORDERED = ("eq", "ne", "lt", "le", "gt", "ge", "in", "is_null", "is_not_null")
OPERATORS: Mapping[ColumnType, tuple[str, ...]] = {
    type_: _ANY if type_ is ColumnType.BOOLEAN else _ORDERED for type_ in ColumnType
}
WITHOUT_VALUE = frozenset({"is_null", "is_not_null"})


def parse(params: Fields, dataset: Dataset, hint: str) -> list[dict[str, Any]]:
    """The filters of `params` as the worker takes them: `{column, type, op, value}`; faults are noted."""
    parsed: list[dict[str, Any]] = []
    for pointer, item in params.items("filters", may_be_empty=True, count_max=FILTERS_MAX):
        filter_ = _one(Fields(item, pointer, ("column", "op", "value"), params.faults), dataset, hint)
        if filter_:
            parsed.append(filter_)
    total = sum(len(text) for entry in parsed for text in _texts(entry["value"]))
    if total > VALUE_CHARS_MAX:
        wanted = f"at most {VALUE_CHARS_MAX} characters of values in all"
        params.faults.add(params.pointer("filters"), f"expected {wanted}, found {total}")
    return parsed


def _one(fields: Fields, dataset: Dataset, hint: str) -> dict[str, Any] | None:
    name = fields.get("column")
    if not isinstance(name, str) or name not in dataset.filters:
        known = listed(dataset.filters)
        fields.faults.add(fields.pointer("column"), f"unknown filter {shown(name)}; known: {known}{hint}")
        return None
    column = dataset.column(name)
    op = fields.get("op")
    operators = OPERATORS[column.type]
    if not isinstance(op, str) or op not in operators:
        message = f"unknown operator {shown(op)} for {column.type} columns; known: {listed(operators)}"
        fields.faults.add(fields.pointer("op"), message)
        return None
    value = _value(fields, column, op)
    return {"column": name, "type": column.type.value, "op": op, "value": value}


def _value(fields: Fields, column: Column, op: str) -> str | list[str] | None:
    if op in WITHOUT_VALUE:
        if fields.get("value") is not None:
            fields.faults.add(fields.pointer("value"), f"expected no value for {op}; remove it")
        return None
    if op == "in":
        entries = fields.items("value", required=True, count_max=IN_VALUES_MAX)
        found = [checked(column, item, pointer, fields.faults) for pointer, item in entries]
        return [text for text in found if text is not None]
    return checked(column, fields.get("value"), fields.pointer("value"), fields.faults)


def checked(column: Column, value: Any, pointer: str, faults: Faults) -> str | None:
    """The value as it travels; None, and a fault, when it does not fit the column."""
    text = literal(column.type, value)
    if text is None:
        faults.add(
            pointer, f"expected {EXPECTED[column.type]} for column {column.name}, found {shown(value)}"
        )
    return text


def _texts(value: str | list[str] | None) -> list[str]:
    return value if isinstance(value, list) else [value or ""]
