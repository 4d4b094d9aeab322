"""What a step or hook is to do: its parameters, not filled yet, and where their templates are written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.contracts.commands import Json
from services.contracts.errors import FieldError
from services.language import expressions, placeholders, scope
from services.language.expressions import ExpressionError, expression_text
from services.language.paths import Path, written


@dataclass(frozen=True, slots=True)
class Place:
    """Where a template stands. `member` is url, headers, query or data: it decides how values are escaped."""

    member: str
    pointer: str
    template: Json
    allow_host: bool = False

    def faults(self, known: scope.Known) -> list[FieldError]:
        """Every placeholder and expression that cannot be filled with what is known."""
        match self.member:
            case "url":
                return placeholders.check_url(self.template, known, self.pointer, allow_host=self.allow_host)
            case "headers":
                return placeholders.check_headers(self.template, known, self.pointer, expressions=True)
            case "query":
                return placeholders.check_query(self.template, known, self.pointer, expressions=True)
            case _:
                return placeholders.check_data(self.template, known, self.pointer, expressions=True)

    def filled(self, values: Mapping[str, Json], later: frozenset[str]) -> Json:
        """The template with its values. Raises placeholders.Unfilled; roots in `later` are not known yet."""
        template, at = self.template, self.pointer
        match self.member:
            case "url":
                return placeholders.fill_url(template, values, at, allow_host=self.allow_host, later=later)
            case "headers":
                return placeholders.fill_headers(template, values, at, expressions=True, later=later)
            case "query":
                return placeholders.fill_query(template, values, at, expressions=True, later=later)
            case _:
                return placeholders.fill_data(template, values, at, expressions=True, later=later)


@dataclass(frozen=True, slots=True)
class Work:
    """Parameters as the worker takes them once they are filled, and the templates among them."""

    parameters: dict[str, Json]
    places: tuple[Place, ...] = ()

    def faults(self, known: scope.Known) -> list[FieldError]:
        """Every template that cannot be filled with what is known; every secret that could go anywhere."""
        return [*(fault for place in self.places for fault in place.faults(known)), *self._exposed()]

    def unfillable(self, values: Mapping[str, Json], later: frozenset[str]) -> list[FieldError]:
        """Every template that these values cannot fill."""
        found: list[FieldError] = []
        for place in self.places:
            try:
                place.filled(values, later)
            except placeholders.Unfilled as unfilled:
                found += unfilled.errors
        return found

    def _exposed(self) -> Iterator[FieldError]:
        """Whoever names the host of a call, by a value or result, would be sent its secrets."""
        if not placeholders.names_host(self.parameters.get("url")):
            return
        for place in self.places:
            for name in sorted({written(path) for path in _secrets(place.template)}):
                message = (
                    f"${{{name}}} cannot go to a host that a value names; write the host into the definition"
                )
                yield FieldError(place.pointer, message)

    def paths(self) -> frozenset[Path]:
        """Every path that the templates read."""
        return frozenset(path for place in self.places for path in _paths(place.template))


def paths_of(expression: str | None) -> frozenset[Path]:
    """Every path that an expression reads; none of a text that is no expression."""
    try:
        return frozenset() if expression is None else expressions.parse(expression).paths()
    except ExpressionError:
        return frozenset()


def _secrets(template: Json) -> Iterator[Path]:
    return (path for path in placeholders.names(template) if path[0] == scope.SECRETS)


def _paths(template: Json) -> Iterator[Path]:
    yield from placeholders.names(template)
    pending = [template]
    while pending:
        one = pending.pop()
        if (text := expression_text(one)) is not None:
            yield from paths_of(text)
        elif isinstance(one, Mapping):
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)
