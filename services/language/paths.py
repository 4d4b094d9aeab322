"""Paths into JSON, `steps.fetch.result.items[0]['odd key']`: read from text, written, looked up."""

import re
from collections.abc import Mapping
from typing import Final

from services.contracts.commands import Json

Path = tuple[str | int, ...]

SEGMENTS_MAX = 32
NAME_CHARS_MAX = 256
MISSING: Final = object()
"""What `lookup` gives where nothing stands; null is a value."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_INDEX = re.compile(r"(0|[1-9][0-9]{0,6})(?![0-9])")
_PLAIN_CHARS = {quote: re.compile(rf"[^\\{quote}]*") for quote in "'\""}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}
_NAME_SHOWN_MAX = 40


class ExpressionError(Exception):
    """A text that is no expression or placeholder, or an expression that cannot be evaluated.

    `position` is the column in the text, from 1. The message holds pieces of the text, never a value.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"column {position}: {message}")
        self.message = message
        self.position = position


def found_at(text: str, at: int) -> str:
    """What stands at an offset, as a message names it."""
    if at >= len(text):
        return "the end"
    if match := _NAME.match(text, at):
        return f"`{match[0][:_NAME_SHOWN_MAX]}`"
    char = text[at]
    return f"`{char}`" if char.isprintable() and char != " " else f"the character U+{ord(char):04X}"


def read_path(text: str, at: int) -> tuple[Path, int]:
    """A name and then any of `.name`, `[0]` and `['odd key']`: the path, and the offset after it."""
    name, end = _name(text, at)
    if len(name) > NAME_CHARS_MAX:
        raise _too_long(at)
    segments: list[str | int] = [name]
    while text.startswith((".", "["), end):
        if len(segments) == SEGMENTS_MAX:
            raise ExpressionError(f"expected at most {SEGMENTS_MAX} names in a path, found more", end + 1)
        start = end + 1
        segment, end = _name(text, start) if text[end] == "." else _bracketed(text, start)
        if isinstance(segment, str) and len(segment) > NAME_CHARS_MAX:
            raise _too_long(start)
        segments.append(segment)
    return tuple(segments), end


def _too_long(at: int) -> ExpressionError:
    return ExpressionError(
        f"expected names of at most {NAME_CHARS_MAX} characters, found a longer one", at + 1
    )


def _name(text: str, at: int) -> tuple[str, int]:
    match = _NAME.match(text, at)
    if not match:
        wanted = "a name (a letter or _, then letters, digits, _ and -)"
        raise ExpressionError(f"expected {wanted}, found {found_at(text, at)}", at + 1)
    return match[0], match.end()


def _bracketed(text: str, at: int) -> tuple[str | int, int]:
    segment: str | int
    if text.startswith(("'", '"'), at):
        segment, end = read_quoted(text, at)
    elif match := _INDEX.match(text, at):
        segment, end = int(match[0]), match.end()
    else:
        wanted = "an index from 0 to 9999999 or a name in quotes"
        raise ExpressionError(f"expected {wanted} after [, found {found_at(text, at)}", at + 1)
    if not text.startswith("]", end):
        raise ExpressionError(f"expected ], found {found_at(text, end)}", end + 1)
    return segment, end + 1


def read_quoted(text: str, at: int) -> tuple[str, int]:
    """The text between the quotes that open at `at`, and the offset after the closing one."""
    quote, pieces, end = text[at], [], at + 1
    while match := _PLAIN_CHARS[quote].match(text, end):
        pieces.append(match[0])
        end = match.end()
        if end >= len(text):
            break
        if text[end] == quote:
            return "".join(pieces), end + 1
        escaped = text[end + 1 : end + 2]
        if escaped not in _ESCAPES:
            wanted = r"one of \\ \' \" \n \r \t"
            raise ExpressionError(f"expected {wanted}, found \\ and {found_at(text, end + 1)}", end + 1)
        pieces.append(_ESCAPES[escaped])
        end += 2
    raise ExpressionError(f"expected {quote} at the end of the text that opens here, found the end", at + 1)


def written(path: Path) -> str:
    """The path as it is written in a definition."""
    pieces = [str(path[0])]
    for segment in path[1:]:
        if isinstance(segment, int):
            pieces.append(f"[{segment}]")
        elif _NAME.fullmatch(segment):
            pieces.append(f".{segment}")
        else:
            quoted = segment.replace("\\", "\\\\").replace("'", "\\'")
            pieces.append(f"['{quoted}']")
    return "".join(pieces)


def lookup(root: Json, path: Path) -> Json:
    """The value at a path, or MISSING: a name looks into objects only, an index into lists only."""
    value = root
    for segment in path:
        if isinstance(segment, str) and isinstance(value, Mapping):
            value = value.get(segment, MISSING)
        elif isinstance(segment, int) and isinstance(value, list | tuple) and segment < len(value):
            value = value[segment]
        else:
            return MISSING
    return value
