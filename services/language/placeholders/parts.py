"""A text of a definition cut into its literal pieces and its placeholders."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.contracts.commands import Json
from services.language.paths import ExpressionError, Path, found_at, read_path, written

REFERENCES_MAX = 1000
"""Placeholders in one template."""


@dataclass(frozen=True, slots=True)
class Reference:
    """`${path}`."""

    path: Path

    def __str__(self) -> str:
        return "${" + written(self.path) + "}"


Parts = tuple[str | Reference, ...]


def parts(text: str) -> Parts:
    """Literals and references in turn; ExpressionError where a `${` begins no placeholder.

    Of the dollars before a brace each pair is one literal dollar: `$${x}` is the text `${x}`, and `$$${x}` is
    a dollar and a value. A dollar that no brace follows is itself.
    """
    found: list[str | Reference] = []
    literal: list[str] = []
    done = 0
    while (last := text.find("${", done)) >= 0:
        first = last
        while first > done and text[first - 1] == "$":
            first -= 1
        pairs, odd = divmod(last + 1 - first, 2)
        literal += text[done:first], "$" * pairs
        done = last + 1
        if odd:
            reference, done = _reference(text, last)
            found += *_joined(literal), reference
            literal.clear()
            if len(found) > 2 * REFERENCES_MAX:
                raise ExpressionError(f"expected at most {REFERENCES_MAX} placeholders, found more", last + 1)
    return (*found, *_joined([*literal, text[done:]]))


def _joined(literal: list[str]) -> list[str]:
    text = "".join(literal)
    return [text] if text else []


def _reference(text: str, at: int) -> tuple[Reference, int]:
    path, end = read_path(text, at + 2)
    if not text.startswith("}", end):
        raise ExpressionError(f"expected }} after the name, found {found_at(text, end)}", end + 1)
    return Reference(path), end + 1


def escaped(text: str, *, before_reference: bool = False) -> str:
    """The text as a template that stands for it; `before_reference`: a placeholder is put right behind it."""
    *ahead, last = text.split("{")
    doubled = [piece + _dollars(piece) for piece in ahead]
    return "{".join([*doubled, last + _dollars(last) if before_reference else last])


def _dollars(piece: str) -> str:
    return "$" * (len(piece) - len(piece.rstrip("$")))


def names(template: Json) -> frozenset[Path]:
    """The paths of all placeholders anywhere in a template; texts that do not parse have none."""
    return frozenset(_paths(template))


def _paths(template: Json) -> Iterator[Path]:
    pending = [template]
    while pending:
        match pending.pop():
            case str() as text:
                try:
                    found = parts(text)
                except ExpressionError:
                    continue
                yield from (part.path for part in found if isinstance(part, Reference))
            case Mapping() as members:
                pending.extend(members.values())
            case list() | tuple() as entries:
                pending.extend(entries)
            case _:
                pass
