"""JSON values as both languages see them: their kind in a message, their text, their size.

No message repeats a value: it may be a secret.
"""

import json
import math
from collections.abc import Callable, Mapping

from services.contracts.commands import Json

DEPTH_MAX = 64
INTEGER_BITS_MAX = 1024
INTEGERS = range(-(1 << 63), 1 << 64)
"""What every codec of ours holds: MessagePack, in which executions are kept, ends there."""

_FIXED_BYTES = 8
"""What a null, boolean, number, list or object counts beside its contents."""


class Unfit(Exception):
    """A value that cannot stand where it was meant to; the message says what was expected and found."""


def kind(value: Json) -> str:
    """What a value is, as a message names it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return f"a {type(value).__name__}, which JSON does not know"


def equal(left: Json, right: Json, counted: Callable[[int], None] = lambda waiting: None) -> bool:
    """Equal as JSON: 1 is 1.0, true is not 1. Without recursion: values may be nested deeply.

    `counted` is called for each pair that is compared, with the number of those that wait; it may raise.
    """
    pending = [(left, right)]
    while pending:
        one, other = pending.pop()
        counted(len(pending))
        if kind(one) != kind(other):
            return False
        match one:
            case list() | tuple():
                if len(one) != len(other):
                    return False
                pending.extend(zip(one, other, strict=True))
            case Mapping():
                if one.keys() != other.keys():
                    return False
                pending.extend((one[key], other[key]) for key in one)
            case _:
                if one != other:
                    return False
    return True


def measured(value: Json, bytes_max: int) -> int:
    """The value's size: the UTF-8 bytes of its texts and keys, and 8 for everything else.

    Unfit when it is larger than `bytes_max`, nested deeper than DEPTH_MAX, or holds what no JSON document
    can: a lone surrogate, a number that is not finite. Stops at the first fault, so its cost is bounded.
    """
    size = 0
    pending = [(value, 1)]
    while pending:
        one, depth = pending.pop()
        size += _own_size(one)
        children = _children(one)
        size += _FIXED_BYTES * len(
            children
        )  # counted before they are visited: a long list is refused at once
        if size > bytes_max:
            raise Unfit(f"expected at most {bytes_max} bytes, found more")
        if children and depth == DEPTH_MAX:
            raise Unfit(f"expected at most {DEPTH_MAX} levels of lists and objects, found more")
        pending.extend((child, depth + 1) for child in children)
    return size


def check_lasting(value: Json, bytes_max: int) -> None:
    """Unfit when `measured` says so, or when the value holds what not every codec and store of ours can: NUL
    in a text or key, an integer beyond 64 bits."""
    measured(value, bytes_max)
    pending = [value]
    while pending:
        one = pending.pop()
        pending.extend(_children(one))
        if isinstance(one, str) and "\0" in one:
            raise Unfit("expected text without NUL, which PostgreSQL cannot hold")
        if isinstance(one, int) and one not in INTEGERS:
            raise Unfit("expected an integer of at most 64 bits, found a larger one; write it as text")


def _children(value: Json) -> list[Json]:
    match value:
        case Mapping():
            return [*value, *value.values()]
        case list() | tuple():
            return [*value]
        case _:
            return []


def _own_size(value: Json) -> int:
    match value:
        case str():
            try:
                return len(value.encode())
            except UnicodeEncodeError:
                raise Unfit("expected text that UTF-8 can hold, found a lone surrogate") from None
        case int() if value.bit_length() > INTEGER_BITS_MAX:
            raise Unfit(f"expected a number of at most {INTEGER_BITS_MAX} bits, found a larger one")
        case float() if not math.isfinite(value):
            raise Unfit("expected a finite number, found another")
        case None | int() | float() | list() | tuple() | Mapping():
            return 0
        case _:
            raise Unfit(f"expected JSON, found {kind(value)}")


def as_text(value: Json) -> str:
    """The one text of a value that was measured: texts as they are, everything else as compact JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def scalar_text(value: Json) -> str:
    """The text of a text, number or boolean; Unfit for null, lists and objects."""
    if value is None or not isinstance(value, str | int | float):
        raise Unfit(f"expected text, a number or a boolean, found {kind(value)}")
    return as_text(value)
