"""Values by column type: what a filter or batch may hold, and the one form in which it travels to the worker.

Everything but instants travels as text, which PostgreSQL reads as a literal of the column's own type: so
`real`, `uuid` or an enum compare as themselves and not as the nearest type of Python's.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from services.jobs.fields import storable

TEXT_CHARS_MAX = 4096
INTEGER_LIMIT = 2**63
_DECIMAL = re.compile(r"[+-]?\d{1,100}(\.\d{1,100})?")
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,18})")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_INSTANT = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)([Zz]|[+-]\d{2}:?\d{2})", re.ASCII
)


class ColumnType(StrEnum):
    """The types a dataset may give its columns."""

    STRING = "string"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"


def instant(value: Any) -> datetime | None:
    """An ISO-8601 date and time with offset, as UTC; None when it is anything else or out of range.

    Every instant of a caller is read here. What is beyond microseconds is cut off; `t` and `z` may be small,
    and an offset may do without its colon.
    """
    found = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    day, time, offset = found.groups()
    try:
        return datetime.fromisoformat(f"{day}T{time[:15]}{offset.upper()}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def literal(type_: ColumnType, value: Any) -> str | None:
    """The value in its travelling form; None when it does not fit the type (`EXPECTED` says what does)."""
    return _LITERALS[type_](value)


def _string(value: Any) -> str | None:
    fits = isinstance(value, str) and len(value) <= TEXT_CHARS_MAX and storable(value)
    return value if fits else None


def _integer(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return str(value) if -INTEGER_LIMIT <= value < INTEGER_LIMIT else None


def _decimal(value: Any) -> str | None:
    if isinstance(value, str):
        return value if value.isascii() and _DECIMAL.fullmatch(value) else None
    return _integer(value) or _float(value)


def _float(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return repr(number) if math.isfinite(number) else None


def _boolean(value: Any) -> str | None:
    return ("true" if value else "false") if isinstance(value, bool) else None


def _date(value: Any) -> str | None:
    if not isinstance(value, str) or not value.isascii() or not _DATE.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        return None


def _timestamp(value: Any) -> str | None:
    moment = instant(value)
    return moment.isoformat() if moment else None


_LITERALS: Mapping[ColumnType, Callable[[Any], str | None]] = {
    ColumnType.STRING: _string,
    ColumnType.INTEGER: _integer,
    ColumnType.DECIMAL: _decimal,
    ColumnType.FLOAT: _float,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.DATE: _date,
    ColumnType.TIMESTAMP: _timestamp,
}

EXPECTED: Mapping[ColumnType, str] = {
    ColumnType.STRING: f"text of at most {TEXT_CHARS_MAX} characters without NUL",
    ColumnType.INTEGER: "a whole number of at most 64 bits",
    ColumnType.DECIMAL: 'a number, or text such as "12.50"',
    ColumnType.FLOAT: "a finite number",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.DATE: 'a date such as "2013-01-31"',
    ColumnType.TIMESTAMP: 'an instant with offset such as "2013-01-31T05:00:00Z"',
}


def batch_text(type_: ColumnType, text: str) -> bool:
    """Whether a batch value, which is always text, is the one spelling of a value of this type."""
    if type_ is ColumnType.INTEGER:
        return (
            text.isascii() and bool(_INTEGER.fullmatch(text)) and text != "-0" and _integer(int(text)) == text
        )
    if type_ is ColumnType.DATE:
        return _date(text) is not None
    return type_ is ColumnType.STRING
