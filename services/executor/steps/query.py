"""The SQL of an export, composed of what the plan looked up in the dataset's catalogue.

No text of a user ever becomes SQL: identifiers and values are quoted by psycopg2 on the connection they are
for (COPY takes no bind parameters).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg2.extensions
from psycopg2.sql import SQL, Composable, Identifier, Literal

from services.jobs.dataset import BATCHES_MAX

Parameters = Mapping[str, Any]
Cursor = psycopg2.extensions.cursor


def _compared(sign: str) -> Callable[[Composable, Any], Composable]:
    return lambda column, value: column + SQL(f" {sign} ") + Literal(value)


def _listed(parts: Iterable[Composable]) -> Composable:
    return SQL(", ").join(parts)


def _one_of(column: Composable, values: Sequence[Any]) -> Composable:
    """Literals one by one: an array of them would have a type, and it need not be the column's."""
    return column + SQL(" IN (") + _listed(map(Literal, values)) + SQL(")") if values else SQL("false")


_OPERATORS: Mapping[str, Callable[[Composable, Any], Composable]] = {
    "eq": _compared("="),
    "ne": _compared("<>"),
    "lt": _compared("<"),
    "le": _compared("<="),
    "gt": _compared(">"),
    "ge": _compared(">="),
    "in": _one_of,
    "is_null": lambda column, _: column + SQL(" IS NULL"),
    "is_not_null": lambda column, _: column + SQL(" IS NOT NULL"),
}


def rows(parameters: Parameters, batch: str | None) -> Composable:
    """The rows of one file: those of `batch`, or all of them when the export has no batch key."""
    columns = _listed(Identifier(entry["name"]) for entry in parameters["columns"])
    conditions = _conditions(parameters)
    if parameters["batch"] is not None:
        conditions.append(_compared("=")(Identifier(parameters["batch"]["column"]), batch))
    found = SQL("SELECT ") + columns + _from(parameters, conditions)
    order = parameters["order_by"]
    return found + SQL(" ORDER BY ") + _listed(map(Identifier, order)) if order else found


def count_up_to(parameters: Parameters, limit: int) -> Composable:
    """How many rows all files together have, counting no further than `limit`."""
    conditions = _conditions(parameters)
    batch = parameters["batch"]
    if batch is not None:
        conditions.append(_one_of(Identifier(batch["column"]), batch["values"]))
    found = SQL("SELECT true") + _from(parameters, conditions) + _limit(limit)
    return SQL("SELECT count(*) FROM ({}) AS found").format(found)


def batches(parameters: Parameters, channel: str | None = None) -> Composable:
    """The ids of the batches with rows, as text: of `channel`, or of all. One more than may be exported."""
    batch = parameters["batch"]
    column = Identifier(batch["column"])
    conditions = [*_conditions(parameters), column + SQL(" IS NOT NULL")]
    if channel is not None:
        conditions.append(_compared("=")(Identifier(batch["channel_column"]), channel))
    found = SQL("SELECT DISTINCT ") + column + _from(parameters, conditions)
    return found + SQL(" ORDER BY ") + column + _limit(BATCHES_MAX + 1)


def known(parameters: Parameters, column: str, values: Sequence[str]) -> Composable:
    """Those of `values` that the column holds anywhere."""
    name = Identifier(column)
    return SQL("SELECT DISTINCT ") + name + _from(parameters, [_one_of(name, values)])


def filtered(parameters: Parameters, entry: Mapping[str, Any]) -> Composable:
    """What one filter selects, to be checked and never run."""
    return SQL("SELECT true") + _from(parameters, [_condition(entry)])


def timed(parameters: Parameters) -> Composable:
    """What the time range selects, to be checked and never run."""
    return SQL("SELECT true") + _from(parameters, _times(parameters))


def render(cursor: Cursor, select: Composable) -> bytes:
    """The statement with its values in place, quoted as this connection needs it."""
    return select.as_string(cursor).encode()


def _from(parameters: Parameters, conditions: Iterable[Composable]) -> Composable:
    schema, _, name = parameters["table"].partition(".")
    found = SQL(" FROM ") + Identifier(schema, name)
    where = SQL(" AND ").join(conditions)
    return found + SQL(" WHERE ") + where if where.seq else found


def _limit(number: int) -> Composable:
    return SQL(" LIMIT ") + Literal(number)


def _conditions(parameters: Parameters) -> list[Composable]:
    conditions = [*map(_condition, parameters["filters"]), *_times(parameters)]
    contents = parameters["contents"]
    if contents is not None:
        first = _first(parameters, contents, conditions)
        conditions.append(SQL("{} IN ({})").format(Identifier(contents["column"]), first))
    return conditions


def _times(parameters: Parameters) -> list[Composable]:
    time = parameters["time"]
    if time is None:
        return []
    column = Identifier(time["column"])
    start, end = datetime.fromisoformat(time["from"]), datetime.fromisoformat(time["to"])
    return [_compared(">=")(column, start), _compared("<")(column, end)]


def _condition(entry: Mapping[str, Any]) -> Composable:
    return _OPERATORS[entry["op"]](Identifier(entry["column"]), _value(entry["type"], entry["value"]))


def _first(
    parameters: Parameters, contents: Mapping[str, Any], conditions: Sequence[Composable]
) -> Composable:
    """The contents that a search with a limit finds; equal ones in order of their key, so always the same."""
    key = Identifier(contents["column"])
    order: list[Composable] = []
    for entry in contents["order"]:
        form = SQL("max({}) DESC" if entry["descending"] else "min({}) ASC")
        order.append(form.format(Identifier(entry["column"])))
    found = SQL("SELECT ") + key + _from(parameters, conditions) + SQL(" GROUP BY ") + key
    return found + SQL(" ORDER BY ") + _listed([*order, key]) + _limit(contents["limit"])


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
