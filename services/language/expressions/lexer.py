"""The text of an expression cut into tokens, in one pass from left to right."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from services.contracts.commands import Json
from services.contracts.numbers import exact
from services.language.paths import ExpressionError, found_at, read_path, read_quoted


class Kind(Enum):
    """What a token is."""

    LITERAL = auto()
    PATH = auto()
    NAME = auto()
    SYMBOL = auto()  # operators, brackets, commas, and the words and, or, not, in
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its text as written, what a literal or path stands for, and its column from 1."""

    kind: Kind
    text: str
    at: int
    value: Json = None


_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.])")
_SYMBOL = re.compile(r"==|!=|<=|>=|[=<>(),]")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR_WORDS = frozenset({"and", "or", "not", "in"})
_LITERAL_WORDS = {"null": None, "true": True, "false": False}
_HINTS = {"&": "; write and", "|": "; write or", "!": "; write not or !="}


def tokens(text: str) -> Iterator[Token]:
    """Every token and then END; ExpressionError where the text is none."""
    at = _space_end(text, 0)
    while at < len(text):
        token, end = _token(text, at)
        yield token
        at = _space_end(text, end)
    yield Token(Kind.END, "the end", len(text) + 1)


def _space_end(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _token(text: str, at: int) -> tuple[Token, int]:
    if text[at] == "$":
        return _path(text, at)
    if text[at] in "'\"":
        value, end = read_quoted(text, at)
        return Token(Kind.LITERAL, text[at:end], at + 1, value), end
    if match := _NUMBER.match(text, at):
        return Token(Kind.LITERAL, match[0], at + 1, number(match[0], at + 1)), match.end()
    if match := _SYMBOL.match(text, at):
        symbol = "==" if match[0] == "=" else match[0]
        return Token(Kind.SYMBOL, symbol, at + 1), match.end()
    if match := _WORD.match(text, at):
        return _word(match[0], at + 1), match.end()
    wanted = "a path ($.), a text in quotes, a number or an operator"
    raise ExpressionError(f"expected {wanted}, found {found_at(text, at)}{_HINTS.get(text[at], '')}", at + 1)


def _path(text: str, at: int) -> tuple[Token, int]:
    if not text.startswith(".", at + 1):
        raise ExpressionError(f"expected . and a name after $, found {found_at(text, at + 1)}", at + 2)
    path, end = read_path(text, at + 2)
    return Token(Kind.PATH, text[at:end], at + 1, path), end


def _word(word: str, at: int) -> Token:
    if word in _LITERAL_WORDS:
        return Token(Kind.LITERAL, word, at, _LITERAL_WORDS[word])
    return Token(Kind.SYMBOL if word in _OPERATOR_WORDS else Kind.NAME, word, at)


def number(text: str, at: int) -> int | float:
    """The number that a JSON number stands for: without point and exponent it stays whole.

    ExpressionError for one that no 64-bit float keeps exactly.
    """
    if not set(text) & set(".eE"):
        return int(text)
    value = exact(text)
    if not isinstance(value, float):
        if not math.isfinite(float(text)):
            raise ExpressionError("expected a number up to 1.8e308, found a larger one", at)
        wanted = "a number that a 64-bit float keeps exactly (up to 17 digits)"
        raise ExpressionError(f"expected {wanted}, found another; use text where text will do", at)
    return value
