"""The SQL of an export, built with SQLAlchemy Core from what the plan looked up in the dataset's catalogue.

No text of a user ever becomes SQL: identifiers are quoted by the dialect, values are quoted by psycopg2 on
the connection they are for (COPY takes no bind parameters).
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import psycopg2.extensions
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

Parameters = Mapping[str, Any]
Cursor = psycopg2.extensions.cursor

_DIALECT: sa.Dialect = PGDialect_psycopg2()  # type: ignore[no-untyped-call]

Condition = sa.ColumnElement[bool]
_OPERATORS: Mapping[str, Callable[[sa.ColumnClause[Any], Any], Condition]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column != value,
    "lt": lambda column, value: column < value,
    "le": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "ge": lambda column, value: column >= value,
    "in": lambda column, value: column.in_(value),
    "is_null": lambda column, _: column.is_(None),
    "is_not_null": lambda column, _: column.is_not(None),
}


def rows(parameters: Parameters, batch: str | None) -> sa.Select[Any]:
    """The rows of one file: those of `batch`, or all of them when the export has no batch key."""
    columns = [_column(entry["name"]) for entry in parameters["columns"]]
    conditions = _conditions(parameters)
    if parameters["batch"] is not None:
        conditions.append(_column(parameters["batch"]["column"]) == batch)
    order = [_column(name) for name in parameters["order_by"]]
    return sa.select(*columns).select_from(_table(parameters)).where(*conditions).order_by(*order)


def count_up_to(parameters: Parameters, limit: int) -> sa.Select[Any]:
    """How many rows all files together have, counting no further than `limit`."""
    conditions = _conditions(parameters)
    if parameters["batch"] is not None:
        conditions.append(_column(parameters["batch"]["column"]).in_(parameters["batch"]["values"]))
    found = sa.select(sa.true()).select_from(_table(parameters)).where(*conditions).limit(limit)
    return sa.select(sa.func.count()).select_from(found.subquery())


def render(cursor: Cursor, select: sa.Select[Any]) -> bytes:
    """The statement with its values in place, quoted as this connection needs it."""
    compiled = select.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    return bytes(cursor.mogrify(str(compiled), compiled.params))


def _table(parameters: Parameters) -> sa.TableClause:
    schema, _, name = parameters["table"].partition(".")
    return sa.table(name, schema=schema)


def _column(name: str) -> sa.ColumnClause[Any]:
    return sa.column(name)


def _conditions(parameters: Parameters) -> list[Condition]:
    conditions = [
        _OPERATORS[entry["op"]](_column(entry["column"]), _value(entry["type"], entry["value"]))
        for entry in parameters["filters"]
    ]
    time = parameters["time"]
    if time is not None:
        column = _column(time["column"])
        conditions.append(column >= datetime.fromisoformat(time["from"]))
        conditions.append(column < datetime.fromisoformat(time["to"]))
    return conditions


def _value(type_: str, value: Any) -> Any:
    """Instants keep their type, so that their offset counts whatever the column's; all else is a literal
    without a type, which PostgreSQL reads as one of the column's own."""
    if type_ != "timestamp" or value is None:
        return value
    return (
        [datetime.fromisoformat(text) for text in value]
        if isinstance(value, list)
        else datetime.fromisoformat(value)
    )
