"""The values of a form: one field, and whether a value fits it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from services.contracts.commands import Json
from services.contracts.secret_names import is_secret
from services.jobs.fields import Faults, Fields, clean, listed, shown, storable
from services.language import patterns
from services.language.values import Unfit, equal, measured

TEXT_CHARS_MAX = 16 * 1024
VALUE_BYTES_MAX = 64 * 1024
INTEGER_LIMIT = 2**63
ANY = "any"
KEYS = (
    *("name", "type", "required", "choices", "default", "title", "description", "secret"),
    *("min_length", "max_length", "pattern", "min", "max"),
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormField:
    """One value of a form. `default` None = none; bounds None = those of the type. `secret`: never shown."""

    name: str
    type: str = ANY
    required: bool = True
    choices: tuple[Json, ...] = ()
    default: Json = None
    title: str | None = None
    description: str | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    min: Json = None
    max: Json = None
    secret: bool = False

    @property
    def hidden(self) -> bool:
        """Whether its value must not be shown: it says so, or its name does."""
        return self.secret or is_secret(self.name)

    def as_json(self) -> dict[str, Json]:
        """The field as a definition would write it, without what is not said."""
        told = {key: getattr(self, key) for key in KEYS}
        told["choices"], told["secret"] = list(self.choices) or None, self.secret or None
        return {key: value for key, value in told.items() if value is not None}


def checked(form: Sequence[FormField], values: Json, faults: Faults, at: str = "values") -> dict[str, Json]:
    """The values of a form with its defaults filled in; every fault is noted under `<at>.<name>`."""
    known = [field.name for field in form]
    given = Fields({} if values is None else values, at, known, faults)
    found: dict[str, Json] = {}
    for field in form:
        value = given.get(field.name)
        if value is None:
            value = field.default
        if value is None:
            if field.required:
                faults.add(given.pointer(field.name), f"expected {_wanted(field)}, found nothing")
            elif given.holds(field.name):
                found[field.name] = None  # a value like any other: whoever sends it wants it filled in
            continue
        if fault := fault_of(field, value):
            unshown = f"expected {_wanted(field)}, found another value (not shown: it is a secret)"
            faults.add(given.pointer(field.name), unshown if field.hidden else fault)
        else:
            found[field.name] = value
    return found


def fault_of(field: FormField, value: Json) -> str | None:
    """Why a value does not fit its field; None when it does."""
    if message := TYPES[field.type](value):
        return message
    if field.choices and not any(equal(value, choice) for choice in field.choices):
        return f"unknown choice {shown(value)}; known: {listed(str(one) for one in field.choices)}"
    if isinstance(value, str | list) and (message := _length_fault(field, value)):
        return message
    if (
        isinstance(value, str)
        and field.pattern is not None
        and (message := _pattern_fault(field.pattern, value))
    ):
        return message
    if field.min is not None and value < field.min:
        return f"expected at least {field.min}, found {shown(value)}"
    if field.max is not None and value > field.max:
        return f"expected at most {field.max}, found {shown(value)}"
    return None


def _length_fault(field: FormField, value: str | list[Json]) -> str | None:
    unit = "characters" if isinstance(value, str) else "entries"
    if field.min_length is not None and len(value) < field.min_length:
        return f"expected at least {field.min_length} {unit}, found {len(value)}"
    if field.max_length is not None and len(value) > field.max_length:
        return f"expected at most {field.max_length} {unit}, found {len(value)}"
    return None


def _pattern_fault(written: str, text: str) -> str | None:
    pattern = patterns.compiled(written)
    if len(text) > pattern.chars_max:
        return (
            f"expected at most {pattern.chars_max} characters, for a pattern of this size, found {len(text)}"
        )
    return None if pattern.matches(text) else f"expected text that matches {written}, found {shown(text)}"


def _wanted(field: FormField) -> str:
    """What a field asks for, in the words of its form: `Order number, text that matches [0-9]+ (...)`."""
    title = f"{clean(field.title)}, " if field.title else ""
    description = f" ({clean(field.description)})" if field.description else ""
    return f"{title}{_fitting(field)}{description}"


def _fitting(field: FormField) -> str:
    if field.choices:
        return f"one of {listed(str(one) for one in field.choices)}"
    if field.pattern is not None:
        return f"text that matches {field.pattern}"
    if field.type == "string" and field.max_length is not None:
        return f"text of at most {field.max_length} characters"
    return "a value" if field.type == ANY else _WANTED[field.type]


_WANTED: Mapping[str, str] = {
    "string": f"text of at most {TEXT_CHARS_MAX} characters without NUL",
    "integer": "a whole number of at most 64 bits",
    "number": "a finite number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "date": 'a date such as "2013-01-31"',
}


def _string(value: Json) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_CHARS_MAX and storable(value)


def _integer(value: Json) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and -INTEGER_LIMIT <= value < INTEGER_LIMIT


def _number(value: Json) -> bool:
    return _integer(value) or (isinstance(value, float) and math.isfinite(value))


def _date(value: Json) -> bool:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _typed(type_: str, fits: Callable[[Json], bool]) -> Callable[[Json], str | None]:
    return lambda value: None if fits(value) else f"expected {_WANTED[type_]}, found {shown(value)}"


def _sized(type_: str, fits: Callable[[Json], bool]) -> Callable[[Json], str | None]:
    def fault(value: Json) -> str | None:
        if not fits(value):
            return f"expected {_WANTED[type_]}, found {shown(value)}"
        return _any(value)

    return fault


def _any(value: Json) -> str | None:
    if isinstance(value, str):
        return None if _string(value) else f"expected {_WANTED['string']}, found {shown(value)}"
    try:
        measured(value, VALUE_BYTES_MAX)
    except Unfit as unfit:
        return str(unfit)
    return None


TYPES: Mapping[str, Callable[[Json], str | None]] = {
    "string": _typed("string", _string),
    "integer": _typed("integer", _integer),
    "number": _typed("number", _number),
    "boolean": _typed("boolean", lambda value: isinstance(value, bool)),
    "object": _sized("object", lambda value: isinstance(value, Mapping)),
    "array": _sized("array", lambda value: isinstance(value, list)),
    "date": _typed("date", _date),
    ANY: _any,
}
