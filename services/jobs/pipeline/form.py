"""Forms: the typed values that a request, or an approval, must bring. One form serves both.

    form:
      - {name: customer, type: string, pattern: "[A-Z]{2}[0-9]+", title: Customer number}
      - {name: copies, type: integer, min: 1, max: 10, default: 1}
      - {name: channel, type: string, choices: [mail, fax], required: false}

A field is required unless it has a default or says `required: false`. A pattern has to match the whole text.
"""

import re
from typing import Any

from services.contracts.commands import Json
from services.jobs.fields import Faults, Fields, clean, listed, shown
from services.jobs.pipeline.values import KEYS, TEXT_CHARS_MAX, TYPES, FormField, fault_of
from services.language import patterns, scope
from services.language.values import equal

FIELDS_MAX = 100
CHOICES_MAX = 200
PATTERN_CHARS_MAX = 200
RESERVED = scope.RESERVED | {"result"}
"""What these names mean in `${…}` and `$.…` is taken; no value can have one of them."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def read(holder: Fields, key: str = "form") -> tuple[FormField, ...]:
    """The form under `key`, an empty one when there is none; faults are noted."""
    if holder.get(key) == []:
        return ()
    fields: dict[str, FormField] = {}
    for pointer, item in holder.items(key, count_max=FIELDS_MAX):
        field = _field(Fields(item, pointer, KEYS, holder.faults))
        if field is not None and field.name in fields:
            holder.faults.add(f"{pointer}.name", f"field {shown(field.name)} stands twice in the form")
        elif field is not None:
            fields[field.name] = field
    return tuple(fields.values())


def parse(items: Json, at: str = "form") -> tuple[FormField, ...]:
    """The form that a list describes. Raises Refused."""
    faults = Faults()
    found = read(Fields({at: items}, "", (at,), faults), at)
    faults.raise_if_any()
    return found


def _field(entry: Fields) -> FormField | None:
    name, type_ = entry.get("name"), entry.get("type") or "string"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        wanted = "a name: a letter or _, then letters, digits, _ and -, at most 64"
        entry.faults.add(entry.pointer("name"), f"expected {wanted}, found {shown(name)}")
        return None
    if name in RESERVED:
        message = f"{shown(name)} has a meaning of its own in placeholders; choose another name"
        entry.faults.add(entry.pointer("name"), message)
    if not isinstance(type_, str) or type_ not in TYPES:
        entry.faults.add(entry.pointer("type"), f"unknown type {shown(type_)}; known: {listed(TYPES)}")
        return FormField(name=name)
    return _checked_field(entry, name, type_)


def _checked_field(entry: Fields, name: str, type_: str) -> FormField:
    given_default = entry.get("default")
    bare = FormField(
        name=name,
        type=type_,
        required=_flag(entry, "required", otherwise=given_default is None),
        title=entry.text("title", required=False, chars_max=200),
        description=entry.text("description", required=False),
        min_length=_length(entry, "min_length", type_),
        max_length=_length(entry, "max_length", type_),
        pattern=_pattern(entry, type_),
        min=_bound(entry, "min", type_),
        max=_bound(entry, "max", type_),
        secret=_flag(entry, "secret", otherwise=False),
    )
    _refuse_shown(entry, bare)
    _in_order(entry, bare.min_length, bare.max_length, "length")
    _in_order(entry, bare.min, bare.max, "")
    choices: list[Json] = []
    for pointer, item in entry.items("choices", count_max=CHOICES_MAX):
        if message := fault_of(bare, item):
            entry.faults.add(pointer, message)
        elif (former := next((i for i, one in enumerate(choices) if equal(one, item)), None)) is not None:
            entry.faults.add(pointer, f"{shown(item)} is already at index {former}")
        else:
            choices.append(item)
    field = FormField(**{**_as_arguments(bare), "choices": tuple(choices), "default": given_default})
    if given_default is not None and (message := fault_of(field, given_default)):
        entry.faults.add(entry.pointer("default"), message)
    return field


def _refuse_shown(entry: Fields, field: FormField) -> None:
    """Every viewer reads the definition."""
    for key in ("default", "choices"):
        if field.secret and entry.get(key) is not None:
            message = f"expected no {key} for a secret field: a definition is no place for secrets; remove it"
            entry.faults.add(entry.pointer(key), message)


def _as_arguments(field: FormField) -> dict[str, Any]:
    return {key: getattr(field, key) for key in KEYS}


def _flag(entry: Fields, key: str, *, otherwise: bool) -> bool:
    value = entry.get(key)
    if value is None:
        return otherwise
    if not isinstance(value, bool):
        entry.faults.add(entry.pointer(key), f"expected true or false, found {shown(value)}")
        return otherwise
    return value


def _length(entry: Fields, key: str, type_: str) -> int | None:
    value = entry.get(key)
    if value is None:
        return None
    if type_ not in ("string", "array"):
        entry.faults.add(entry.pointer(key), f"expected no {key} for type {type_}; remove it")
    elif isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TEXT_CHARS_MAX:
        wanted = f"a whole number from 0 to {TEXT_CHARS_MAX}"
        entry.faults.add(entry.pointer(key), f"expected {wanted}, found {shown(value)}")
    else:
        return value
    return None


def _bound(entry: Fields, key: str, type_: str) -> Any:
    value = entry.get(key)
    if value is None:
        return None
    if type_ not in ("integer", "number", "date"):
        entry.faults.add(entry.pointer(key), f"expected no {key} for type {type_}; remove it")
    elif message := TYPES[type_](value):
        entry.faults.add(entry.pointer(key), message)
    else:
        return value
    return None


def _in_order(entry: Fields, least: Any, most: Any, what: str) -> None:
    if least is not None and most is not None and least > most:
        suffix = f"_{what}" if what else ""
        message = f"expected at most max{suffix}, {shown(most)}, found {shown(least)}"
        entry.faults.add(entry.pointer(f"min{suffix}"), message)


def _pattern(entry: Fields, type_: str) -> str | None:
    value = entry.text("pattern", required=False, chars_max=PATTERN_CHARS_MAX)
    if value is None:
        return None
    if type_ != "string":
        entry.faults.add(entry.pointer("pattern"), f"expected no pattern for type {type_}; remove it")
        return None
    try:
        patterns.compiled(value)
    except patterns.BadPattern as bad:
        wanted = "a regular expression as RE2 takes it, of at most 256 KiB once compiled"
        entry.faults.add(entry.pointer("pattern"), f"expected {wanted}: {clean(str(bad))}")
        return None
    return value
