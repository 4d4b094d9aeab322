"""Documents as people write them, bodies or files: JSON or YAML text to plain values, within stated limits.

What PostgreSQL, Avro or another JSON reader would refuse or read differently is refused here: NaN, numbers
that 64 bits do not hold exactly, doubled keys, lone surrogates, NUL, deep nesting. Nothing is ever repaired.
"""

import json
import re
from decimal import Decimal
from typing import Any

import msgspec
import yaml

from services.contracts.errors import FieldError
from services.contracts.numbers import exact
from services.jobs.fields import shown

DEPTH_MAX = 32
VALUES_MAX = 10_000
KEY_CHARS_MAX = 256
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1

DIGITS_MAX = 20

_DECODER = msgspec.json.Decoder(float_hook=exact)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", re.ASCII)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"(\s*:)?')


class Malformed(Exception):
    """The text is not a body; `errors` is empty when the fault has no place in the body."""

    def __init__(self, message: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text (RFC 8259, UTF-8 without BOM). Raises Malformed."""
    _refuse_encoding(raw)
    try:
        value = _DECODER.decode(raw)
    except RecursionError:
        raise Malformed(_too_deep()) from None
    except msgspec.ValidationError as error:
        raise Malformed(f"a number is out of range ({error}); numbers are 64-bit") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Malformed(f"the body is not JSON: {_fault_of(raw, error)}") from None
    # The decoder keeps the last of doubled keys. Counting keys in the text is cheap; naming one is not.
    keys = sum(1 for match in _STRING.finditer(raw) if match[1])
    if keys != _check(value):
        json.loads(raw, object_pairs_hook=_refuse_doubled)
    return value


def parse_yaml(raw: bytes) -> Any:
    """The value of a YAML text read by YAML 1.2's core rules: `no`, `9E` and dates are strings.

    Anchors, aliases, tags and several documents are refused. Raises Malformed.
    """
    _refuse_encoding(raw)
    builder = _Builder()
    try:
        for event in yaml.parse(raw, Loader=yaml.CSafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise Malformed(f"the body is not YAML: {error.problem}{_place(error.problem_mark)}") from None
    except yaml.YAMLError as error:
        raise Malformed(f"the body is not YAML: {type(error).__name__}") from None
    _check(builder.value)
    return builder.value


def _fault_of(raw: bytes, error: Exception) -> str:
    """The fault with its line and column, which the quick decoder does not count."""
    try:
        json.loads(raw)
    except json.JSONDecodeError as found:
        return f"{found.msg} (line {found.lineno}, column {found.colno})"
    except (RecursionError, ValueError):
        pass
    return str(error)


def _refuse_encoding(raw: bytes) -> None:
    if not raw.strip():
        raise Malformed("the body is empty: expected an object")
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise Malformed("the body starts with a byte order mark: send UTF-8 without one")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8 (byte {error.start})") from None


def _check(value: Any) -> int:
    """Refuse what goes past the limits; returns the number of keys in all objects."""
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    keys = values = 0
    while stack:
        item, path = stack.pop()
        values += 1
        if values > VALUES_MAX:
            raise Malformed(f"the body holds too many values: expected at most {VALUES_MAX}")
        if len(path) > DEPTH_MAX:
            raise Malformed(_too_deep())
        match item:
            case dict():
                keys += len(item)
                for key, inner in item.items():
                    _check_key(key, path)
                    stack.append((inner, (*path, key)))
            case list():
                stack.extend((inner, (*path, index)) for index, inner in enumerate(item))
            case _:
                _check_scalar(item, path)
    return keys


def _check_key(key: Any, path: tuple[str | int, ...]) -> None:
    if not isinstance(key, str):
        raise _fault(path, f"expected keys that are text, found {type(key).__name__}")
    if len(key) > KEY_CHARS_MAX:
        raise _fault(path, f"expected keys of at most {KEY_CHARS_MAX} characters, found {len(key)}")
    _check_scalar(key, path)


def _check_scalar(value: Any, path: tuple[str | int, ...]) -> None:
    match value:
        case str():
            if "\0" in value:
                raise _fault(path, "expected text without NUL (\\u0000)")
            if any("\ud800" <= char <= "\udfff" for char in value):
                raise _fault(path, "expected text without lone surrogates")
        case bool() | float() | None:
            pass
        case int():
            if not INTEGER_MIN <= value <= INTEGER_MAX:
                raise _fault(path, "expected an integer of at most 64 bits")
        case Decimal():
            raise _fault(path, inexact(value))
        case _:
            raise _fault(path, f"expected a JSON value, found {type(value).__name__}")


def inexact(value: Decimal) -> str:
    """Why a number is refused."""
    wanted = "a number that a 64-bit float keeps exactly (up to 17 digits)"
    return f"expected {wanted}, found {shown(value)}; write it as text where text is taken"


def first_inexact(value: Any) -> tuple[str, Decimal] | None:
    """Where a decoded value holds a number that no float keeps, and the number."""
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(value, ())]
    while stack:
        item, path = stack.pop()
        if isinstance(item, dict):
            stack.extend((inner, (*path, key)) for key, inner in item.items())
        elif isinstance(item, list):
            stack.extend((inner, (*path, index)) for index, inner in enumerate(item))
        elif isinstance(item, Decimal):
            return pointer(path), item
    return None


def _fault(path: tuple[str | int, ...], message: str) -> Malformed:
    place = pointer(path)
    return Malformed(f"{place}: {message}", (FieldError(place, message),))


def pointer(path: tuple[str | int, ...]) -> str:
    """A path as people write it: `params.batches[1]`; the body itself is `body`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in path)
    return text.removeprefix(".") or "body"


def _shown(key: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in key[:80])


def _too_deep() -> str:
    return f"the body is nested too deeply: expected at most {DEPTH_MAX} levels"


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            message = "this key stands twice in its object"
            raise Malformed(f"{_shown(key)}: {message}", (FieldError(_shown(key), message),))
        found[key] = value
    return found


class _Builder:
    """Makes a value of a YAML parser's events, so that limits hold while the text is still being read."""

    def __init__(self) -> None:
        self.value: Any = None
        self._documents = 0
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str | None] = []

    def take(self, event: Any) -> None:
        """The next event. Raises Malformed."""
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _not_yaml("anchors and aliases are refused", event)
        if getattr(event, "tag", None):
            raise _not_yaml("tags are refused", event)
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _not_yaml("expected one document, found another", event)
            case yaml.MappingStartEvent():
                self._begin({}, event)
            case yaml.SequenceStartEvent():
                self._begin([], event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._open.pop()
                self._keys.pop()
            case yaml.ScalarEvent():
                self._scalar(event)
            case _:
                pass  # the ends of documents and of the stream

    def _begin(self, value: dict[str, Any] | list[Any], event: Any) -> None:
        if len(self._open) >= DEPTH_MAX:
            raise Malformed(_too_deep())
        if self._expects_key():
            raise _not_yaml("a key is no plain text", event)
        self._put(value)
        self._open.append(value)
        self._keys.append(None)

    def _scalar(self, event: Any) -> None:
        if not self._expects_key():
            self._put(_plain(event.value) if event.implicit[0] else event.value)
            return
        if event.value in self._open[-1]:
            raise _not_yaml(f"the key {_shown(event.value)!r} stands twice", event)
        self._keys[-1] = event.value

    def _expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], dict) and self._keys[-1] is None

    def _put(self, value: Any) -> None:
        if not self._open:
            self.value = value
            return
        holder, key = self._open[-1], self._keys[-1]
        if isinstance(holder, list):
            holder.append(value)
        else:
            assert key is not None
            holder[key] = value
            self._keys[-1] = None


def _plain(text: str) -> Any:
    """An unquoted scalar by the core schema; what is not clearly another type is text."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= DIGITS_MAX else INTEGER_MAX + 1  # refused with its place
    return exact(text) if _FLOAT.fullmatch(text) else text


def _not_yaml(message: str, event: Any) -> Malformed:
    return Malformed(f"the body is not YAML as we take it: {message}{_place(event.start_mark)}")


def _place(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
