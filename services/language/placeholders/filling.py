"""One filling of one template: looks values up, once each, and notes every fault with its place."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from services.contracts.commands import Json
from services.contracts.errors import FieldError
from services.language import expressions, scope
from services.language.expressions import expression_text
from services.language.paths import MISSING, ExpressionError, lookup
from services.language.placeholders.parts import REFERENCES_MAX, Parts, Reference, escaped, parts
from services.language.values import Unfit, measured

BYTES_MAX = 256 * 1024
"""Of all values that one template takes in, and of the data that results."""

_SHOWN_CHARS_MAX = 80


class Unfilled(Exception):
    """A template that these values cannot fill: every fault, in the order of the template; never empty."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


class Later(str):
    """Stands for a value that is not known yet, wherever a real one would stand."""

    __slots__ = ()


LATER = Later("later")


class Source(Protocol):
    """Where values come from. Both methods raise Unfit, with a message that repeats no value."""

    def placeholder(self, reference: Reference) -> Json:
        """The value of a placeholder."""

    def expression(self, text: str) -> Json:
        """The value of an expression."""


@dataclass(frozen=True, slots=True)
class Names:
    """No values yet, only which names there will be: checks a definition."""

    known: scope.Known

    def placeholder(self, reference: Reference) -> Json:
        if fault := scope.fault(reference.path, self.known):
            raise Unfit(fault)
        return LATER

    def expression(self, text: str) -> Json:
        if faults := scope.check_expression(text, self.known, ""):
            raise Unfit("; ".join(fault.message for fault in faults))
        return LATER


@dataclass(frozen=True, slots=True)
class Values:
    """The context, with the roots in `later` not known yet: LATER stands for whatever reads them."""

    context: Mapping[str, Json]
    later: Collection[str] = ()

    def placeholder(self, reference: Reference) -> Json:
        if reference.path[0] in self.later:
            return LATER
        value = lookup(self.context, reference.path)
        if value is MISSING:
            raise Unfit(f"expected a value for {reference}, found none")
        return value

    def expression(self, text: str) -> Json:
        try:
            expression = expressions.parse(text)
            if any(path[0] in self.later for path in expression.paths()):
                return LATER
            visible = {name: value for name, value in self.context.items() if name != scope.SECRETS}
            return expression.evaluate(visible)
        except ExpressionError as error:
            raise Unfit(str(error)) from None


class Filling:
    """The state of one filling. A fault is noted and something harmless goes on in its place."""

    def __init__(
        self, source: Source, *, secrets: bool, expressions: bool = False, leave_secrets: bool = False
    ) -> None:
        """`secrets`: whether they may stand here. `expressions`: whether texts may be expressions.

        `leave_secrets`: the result is a template again, whose placeholders are those of secrets alone.
        """
        self._source = source
        self._secrets = secrets
        self._expressions = expressions
        self._leave_secrets = leave_secrets
        self._bytes_left = BYTES_MAX
        self._references = 0
        self.errors: list[FieldError] = []

    def add(self, pointer: str, message: str) -> None:
        """Note a fault."""
        self.errors.append(FieldError(pointer, message))

    def raise_if_any(self) -> None:
        """Raise Unfilled with everything noted."""
        if self.errors:
            raise Unfilled(tuple(self.errors))

    def parts(self, text: str, pointer: str) -> Parts:
        """The parts of a text."""
        try:
            measured(text, BYTES_MAX)
            return parts(text)
        except (ExpressionError, Unfit) as error:
            self.add(pointer, str(error))
            return ()

    def key(self, text: str, pointer: str, what: str) -> str:
        """A name or key, in which no placeholder may stand."""
        found = self.parts(text, pointer)
        if any(isinstance(part, Reference) for part in found):
            self.add(pointer, f"expected no placeholder in {what}; $${{ stands for a literal ${{")
        return self._literal([str(part) for part in found])

    def value(self, reference: Reference, pointer: str) -> Json:
        """What a placeholder stands for; null where a fault was noted."""
        self._references += 1
        if self._references == REFERENCES_MAX + 1:
            self.add(pointer, f"expected at most {REFERENCES_MAX} placeholders, found more")
        if self._references > REFERENCES_MAX:
            return LATER
        if reference.path[0] == scope.SECRETS and not self._secrets:
            self.add(pointer, f"{reference} cannot stand in a URL or query, which logs and proxies keep")
            return LATER
        if self._left(reference):
            return LATER
        return self._taken(lambda: self._source.placeholder(reference), pointer)

    def whole(self, template: Json, pointer: str) -> Json:
        """The value, of any type, of a template that is one placeholder or one expression; else MISSING."""
        if self._expressions and (text := expression_text(template)) is not None:
            return self._kept(self._taken(lambda: self._source.expression(text), pointer))
        if isinstance(template, str) and template.startswith("${"):
            found = self.parts(template, pointer)
            if not found:
                return LATER
            if len(found) == 1 and isinstance(found[0], Reference):
                left, value = self._left(found[0]), self.value(found[0], pointer)
                return str(found[0]) if left else self._kept(value)
        return MISSING

    def text(self, template: str, pointer: str, form: Callable[[Json], str]) -> str:
        """The text with its placeholders filled; `form` makes text of a value, or raises Unfit."""
        if self._expressions and template.startswith(("$$.", "$$(")):
            template = template[1:]
        return self.joined(self.parts(template, pointer), pointer, form)

    def joined(self, found: Parts, pointer: str, form: Callable[[Json], str]) -> str:
        """The literals as they are, and the text of each value."""
        pieces: list[str] = []
        literal: list[str] = []
        for part in found:
            if isinstance(part, str):
                literal.append(part)
                continue
            value = self.value(part, pointer)
            if self._left(part):
                pieces += self._literal(literal, before_reference=True), str(part)
                literal.clear()
                continue
            try:
                literal.append(form(value))
            except Unfit as unfit:
                self.add(pointer, f"{part}: {unfit}")
                literal.append(LATER)
        return "".join([*pieces, self._literal(literal)])

    def _left(self, reference: Reference) -> bool:
        return self._leave_secrets and reference.path[0] == scope.SECRETS

    def _literal(self, pieces: list[str], *, before_reference: bool = False) -> str:
        # Escaped only once joined: the dollar of one value and the brace of another would make a placeholder.
        text = "".join(pieces)
        return escaped(text, before_reference=before_reference) if self._leave_secrets else text

    def _kept(self, value: Json) -> Json:
        """The value, or the template that stands for it; it was measured, so it is not too deep."""
        if not self._leave_secrets:
            return value
        match value:
            case str():
                return escaped(value)
            case list() | tuple():
                return [self._kept(one) for one in value]
            case Mapping():
                return {escaped(key): self._kept(one) for key, one in value.items()}
            case _:
                return value

    def _taken(self, read: Callable[[], Json], pointer: str) -> Json:
        if self._bytes_left < 0:
            return LATER
        try:
            value = read()
            self._bytes_left -= measured(value, BYTES_MAX)
        except Unfit as unfit:
            self.add(pointer, str(unfit))
            return LATER
        if self._bytes_left < 0:
            self.add(pointer, f"expected at most {BYTES_MAX} bytes of values in all, found more")
            return LATER
        return value


def member(pointer: str, key: object) -> str:
    """The pointer of a member: `data.key`, or `data["odd key"]`; `pointer` is "" for a whole body."""
    text = str(key)
    if text.isidentifier() and text.isascii() and len(text) <= _SHOWN_CHARS_MAX:
        return f"{pointer}.{text}" if pointer else text
    cut = text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "..."
    shown = cut.encode("utf-8", "backslashreplace").decode().replace('"', '\\"')
    return f'{pointer}["{shown}"]'
