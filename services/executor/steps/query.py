"""The SQL of an export, built with SQLAlchemy Core from what the plan looked up in the dataset's catalogue.

No text of a user ever becomes SQL: identifiers are quoted by the dialect, values are quoted by psycopg2 on
the connection they are for (COPY takes no bind parameters).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg2.extensions
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from services.jobs.dataset import BATCHES_MAX

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


def batches(parameters: Parameters, channel: str | None = None) -> sa.Select[Any]:
    """The ids of the batches with rows, as text: of `channel`, or of all. One more than may be exported."""
    batch = parameters["batch"]
    column = _column(batch["column"])
    conditions = [*_conditions(parameters), column.is_not(None)]
    if channel is not None:
        conditions.append(_column(batch["channel_column"]) == channel)
    found = sa.select(column).select_from(_table(parameters)).where(*conditions)
    return found.distinct().order_by(column).limit(BATCHES_MAX + 1)


def known(parameters: Parameters, column: str, values: Sequence[str]) -> sa.Select[Any]:
    """Those of `values` that the column holds anywhere."""
    found = sa.select(_column(column)).select_from(_table(parameters))
    return found.where(_column(column).in_(list(values))).distinct()


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
    contents = parameters["contents"]
    if contents is not None:
        conditions.append(_column(contents["column"]).in_(_first(parameters, contents, conditions)))
    return conditions


def _first(
    parameters: Parameters, contents: Mapping[str, Any], conditions: Sequence[Condition]
) -> sa.Select[Any]:
    """The contents that a search with a limit finds; equal ones in order of their key, so always the same."""
    key = _column(contents["column"])
    order: list[Any] = []
    for entry in contents["order"]:
        column = _column(entry["column"])
        order.append(sa.func.max(column).desc() if entry["descending"] else sa.func.min(column).asc())
    found = sa.select(key).select_from(_table(parameters)).where(*conditions)
    return found.group_by(key).order_by(*order, key).limit(contents["limit"])


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
