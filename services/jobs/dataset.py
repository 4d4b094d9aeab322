"""Datasets: which columns of which table may be exported, filtered and cut into batches.

    source: flights                 # MILLSTREAM_SOURCES__FLIGHTS, and ...__TENANTS says who may use it
    table: public.flights
    columns:
      - {name: carrier, type: string, description: two-letter code}
      - {name: time_hour, type: timestamp}
    batch: {column: carrier, values: [9E, AA]}   # one file per value
    content: {identifier: course, name: title}   # what contentFilters may search: its field -> column
    filters: [time_hour]
    time_column: time_hour
    order_by: [time_hour]
    formats: [csv]
    limits: {max_rows: 1000000}

A batch without `values` may have `channel_column`: then a request may name a channel for all its batches.
A request may name only what stands here, so this catalogue is the whole surface between users and SQL.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.jobs.fields import Faults, Fields, clean, listed, shown
from services.jobs.values import ColumnType, batch_text

FORMATS = ("csv",)
COLUMNS_MAX = 500
BATCHES_MAX = 1000
ROWS_LIMIT_MAX = 10**12
# `reports-<batch>.csv` stays within 120 bytes, and within the names that every file system keeps as they are.
BATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,107}")
BATCH_NAME_RULE = "1 to 108 of A-Z a-z 0-9 . _ - beginning with a letter or digit (it names a file)"

KEYS = (
    *("source", "table", "description", "columns", "batch"),
    *("filters", "time_column", "order_by", "formats", "limits", "content"),
)
CONTENT_KEY = "identifier"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_SOURCE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_BATCH_TYPES = (ColumnType.STRING, ColumnType.INTEGER, ColumnType.DATE)
_TIME_TYPES = (ColumnType.DATE, ColumnType.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the catalogue."""

    name: str
    type: ColumnType
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The column whose values cut the export into files; no `values` = any value, named by each request.

    `channel_column` tells to which channel (S1: an organisation) a row's batch belongs.
    """

    column: str
    values: tuple[str, ...] = ()
    channel_column: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A checked definition. `table` is `schema.name`; `filters`, `order_by` and the rest name `columns`."""

    source: str
    table: str
    columns: tuple[Column, ...]
    description: str | None = None
    batch: Batch | None = None
    filters: tuple[str, ...] = ()
    time_column: str | None = None
    order_by: tuple[str, ...] = ()
    formats: tuple[str, ...] = FORMATS
    max_rows: int | None = None
    content: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str) -> Column:
        """The column of that name. KeyError: it is not in the catalogue."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def parse(body: Any, at: str = "") -> Dataset:
    """The dataset that `body` (decoded YAML or JSON) describes; `at` is the pointer of the body itself.

    Raises Refused with every fault.
    """
    faults = Faults()
    fields = Fields(body, at, KEYS, faults)
    source = _matching(fields, "source", _SOURCE, "the name of a source: a-z 0-9 _, at most 63")
    table = _table(fields)
    columns = _columns(fields)
    types = {column.name: column.type for column in columns}
    dataset = Dataset(
        source=source,
        table=table,
        columns=columns,
        description=fields.text("description", required=False),
        batch=_batch(fields, types),
        filters=fields.names("filters", "column", types, count_max=COLUMNS_MAX),
        time_column=_column_of(fields, "time_column", types, _TIME_TYPES)
        if fields.get("time_column")
        else None,
        order_by=fields.names("order_by", "column", types, count_max=COLUMNS_MAX),
        formats=fields.names("formats", "format", FORMATS, count_max=len(FORMATS)) or FORMATS,
        max_rows=_max_rows(fields),
        content=_content(fields, types),
    )
    faults.raise_if_any()
    return dataset


def _matching(fields: Fields, name: str, pattern: re.Pattern[str], wanted: str) -> str:
    value = fields.get(name)
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    fields.faults.add(fields.pointer(name), f"expected {wanted}, found {shown(value)}")
    return ""


def _table(fields: Fields) -> str:
    value = fields.get("table")
    schema, _, name = value.partition(".") if isinstance(value, str) else ("", "", "")
    if not _IDENTIFIER.fullmatch(schema) or not _IDENTIFIER.fullmatch(name):
        wanted = "schema.name, each of A-Z a-z 0-9 _ and at most 63 long"
        fields.faults.add(fields.pointer("table"), f"expected {wanted}, found {shown(value)}")
    elif schema.lower().startswith("pg_") or schema.lower() == "information_schema":
        fields.faults.add(
            fields.pointer("table"), f"schema {schema} belongs to PostgreSQL and is not exported"
        )
    return f"{schema}.{name}"


def _columns(fields: Fields) -> tuple[Column, ...]:
    columns: dict[str, Column] = {}
    for pointer, item in fields.items("columns", required=True, count_max=COLUMNS_MAX):
        entry = Fields(item, pointer, ("name", "type", "description"), fields.faults)
        name = _matching(entry, "name", _IDENTIFIER, "a column name of A-Z a-z 0-9 _, at most 63 long")
        type_ = entry.get("type")
        if not isinstance(type_, str) or type_ not in [*ColumnType]:
            message = f"unknown type {shown(type_)}; known: {listed(ColumnType)}"
            fields.faults.add(entry.pointer("type"), message)
            type_ = ColumnType.STRING
        if name in columns:
            fields.faults.add(entry.pointer("name"), f"column {shown(name)} stands twice in the list")
        # A column with a bad type is kept, so that fields naming it are not reported for its fault.
        columns[name] = Column(name, ColumnType(type_), entry.text("description", required=False))
    return tuple(columns.values())


def _column_of(
    fields: Fields, name: str, types: dict[str, ColumnType], allowed: tuple[ColumnType, ...]
) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or value not in types:
        message = f"unknown column {shown(value)}; known: {listed(types)}"
        fields.faults.add(fields.pointer(name), message)
        return ""
    if types[value] not in allowed:
        message = f"expected a column of type {' or '.join(allowed)}, found {value} of type {types[value]}"
        fields.faults.add(fields.pointer(name), message)
    return value


def _batch(fields: Fields, types: dict[str, ColumnType]) -> Batch | None:
    if fields.get("batch") is None:
        return None
    entry = fields.object("batch", ("column", "values", "channel_column"))
    column = _column_of(entry, "column", types, _BATCH_TYPES)
    type_ = types.get(column, ColumnType.STRING)
    values = batch_values(entry, "values", type_)
    channel = None
    if entry.get("channel_column") is not None:
        channel = _column_of(entry, "channel_column", types, (ColumnType.STRING,))
        if values:
            message = "expected no channel_column beside values; remove one of them"
            fields.faults.add(entry.pointer("channel_column"), message)
    return Batch(column, values, channel)


def _content(fields: Fields, types: dict[str, ColumnType]) -> Mapping[str, str]:
    value = fields.get("content")
    if value is None:
        return {}
    at = fields.pointer("content")
    if not isinstance(value, Mapping) or CONTENT_KEY not in value:
        fields.faults.add(at, f"expected an object with at least {CONTENT_KEY}, found {shown(value)}")
        return {}
    for name, column in value.items():
        if not isinstance(column, str) or column not in types:
            fields.faults.add(
                f"{at}.{clean(str(name))}", f"unknown column {shown(column)}; known: {listed(types)}"
            )
    return dict(value)


def batch_values(fields: Fields, name: str, type_: ColumnType) -> tuple[str, ...]:
    """A list of batch values: they fit the column, give safe file names, and differ by more than case."""
    seen: dict[str, str] = {}
    for pointer, item in fields.items(name, count_max=BATCHES_MAX):
        if not isinstance(item, str) or not item.isascii() or not BATCH_NAME.fullmatch(item):
            fields.faults.add(pointer, f"expected {BATCH_NAME_RULE}, found {shown(item)}")
        elif not batch_text(type_, item):
            wanted = f"text that is a plain {type_}, as the batch column is"
            fields.faults.add(pointer, f"expected {wanted}, found {shown(item)}")
        elif item.lower() in seen:
            other = seen[item.lower()]
            same = "stands twice in the list" if other == item else f'gives the same file name as "{other}"'
            fields.faults.add(pointer, f"{shown(item)} {same}")
        else:
            seen[item.lower()] = item
    return tuple(seen.values())


def _max_rows(fields: Fields) -> int | None:
    if fields.get("limits") is None:
        return None
    entry = Fields(fields.get("limits"), fields.pointer("limits"), ("max_rows",), fields.faults)
    value = entry.get("max_rows")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= ROWS_LIMIT_MAX:
        wanted = f"a whole number from 1 to {ROWS_LIMIT_MAX}"
        fields.faults.add(entry.pointer("max_rows"), f"expected {wanted}, found {shown(value)}")
        return None
    return value
