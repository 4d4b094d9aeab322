"""Placeholders of step parameters: `${name}` and `${steps.fetch.result.id}` in url, query, headers and data.

Values are never read for placeholders. Who has every value but the secrets binds a template (`bind_*`): the
result is a template of secrets alone, and gives, filled with them, what one filling would have given.
Escaping depends on the place alone (docs/placeholders.md). `check_*` judge a definition, `fill_*` a request:
at its creation with the roots in `later` not known yet, and when its step runs.

`values` is the context of `services.language.scope`, plus `secrets` where they are open.
"""

from collections.abc import Collection, Mapping

from services.contracts.commands import Json
from services.contracts.errors import FieldError
from services.language import scope
from services.language.placeholders import data, headers, query, url
from services.language.placeholders.filling import BYTES_MAX, Filling, Names, Unfilled, Values
from services.language.placeholders.parts import REFERENCES_MAX, names
from services.language.placeholders.url import names_host

__all__ = [
    "AT_CREATION",
    "BYTES_MAX",
    "REFERENCES_MAX",
    "Unfilled",
    "bind_data",
    "bind_headers",
    "check_data",
    "check_headers",
    "check_query",
    "check_url",
    "fill_data",
    "fill_headers",
    "fill_query",
    "fill_url",
    "names",
    "names_host",
    "redacted",
    "with_query",
]

AT_CREATION = frozenset({"execution", "request", "steps", scope.SECRETS})
"""`later` when a request is created: only its own values are known."""

_MASK = "***"


def check_url(
    template: Json,
    known: scope.Known,
    pointer: str = "url",
    *,
    allow_host: bool = False,
    relative: bool = False,
) -> list[FieldError]:
    """Every fault of a URL in a definition. `relative`: a path alone may stand here, behind a base URL."""
    filling = Filling(Names(known), secrets=False)
    base = "https://later" if relative else None
    url.filled(filling, template, pointer, url.Rules(allow_host, base))
    return filling.errors


def check_query(
    template: Json, known: scope.Known, pointer: str = "query", *, expressions: bool = False
) -> list[FieldError]:
    """Every fault of an object of query parameters."""
    filling = Filling(Names(known), secrets=False, expressions=expressions)
    query.filled(filling, template, pointer)
    return filling.errors


def check_headers(
    template: Json, known: scope.Known, pointer: str = "headers", *, expressions: bool = False
) -> list[FieldError]:
    """Every fault of an object of headers."""
    filling = Filling(Names(known), secrets=True, expressions=expressions)
    headers.filled(filling, template, pointer)
    return filling.errors


def check_data(
    template: Json, known: scope.Known, pointer: str = "data", *, expressions: bool = False
) -> list[FieldError]:
    """Every fault of JSON data; with `expressions` also of a TRANSFORM step's template."""
    filling = Filling(Names(known), secrets=True, expressions=expressions)
    data.filled(filling, template, pointer)
    return filling.errors


def fill_url(
    template: Json,
    values: Mapping[str, Json],
    pointer: str = "url",
    *,
    allow_host: bool = False,
    base: str | None = None,
    later: Collection[str] = (),
) -> str:
    """The URL to call. Unfilled lists every fault.

    With `allow_host` a value may be the scheme, a piece of host or port, or, at the very beginning, a whole
    base URL. `base`: the URL that a path alone is put behind.
    """
    filling = Filling(Values(values, later), secrets=False)
    filled = url.filled(filling, template, pointer, url.Rules(allow_host, base))
    filling.raise_if_any()
    return filled


def fill_query(
    template: Json,
    values: Mapping[str, Json],
    pointer: str = "query",
    *,
    expressions: bool = False,
    later: Collection[str] = (),
) -> str:
    """The query, `a=1&b=2`, percent-encoded; put it behind a URL by `with_query`."""
    filling = Filling(Values(values, later), secrets=False, expressions=expressions)
    filled = query.filled(filling, template, pointer)
    filling.raise_if_any()
    return filled


def fill_headers(
    template: Json,
    values: Mapping[str, Json],
    pointer: str = "headers",
    *,
    expressions: bool = False,
    later: Collection[str] = (),
) -> dict[str, str]:
    """Headers that can be sent: tokens as names, printable ASCII as values."""
    filling = Filling(Values(values, later), secrets=True, expressions=expressions)
    filled = headers.filled(filling, template, pointer)
    filling.raise_if_any()
    return filled


def fill_data(
    template: Json,
    values: Mapping[str, Json],
    pointer: str = "data",
    *,
    expressions: bool = False,
    later: Collection[str] = (),
) -> Json:
    """The data, at most BYTES_MAX large. With `expressions`, what `expression_text` reads is evaluated."""
    filling = Filling(Values(values, later), secrets=True, expressions=expressions)
    filled = data.filled(filling, template, pointer)
    filling.raise_if_any()
    return filled


def bind_headers(
    template: Json, values: Mapping[str, Json], pointer: str = "headers", *, expressions: bool = False
) -> dict[str, str]:
    """Headers in which only placeholders of secrets are left, for `fill_headers` with `{"secrets": ...}`."""
    filling = Filling(Values(values), secrets=True, expressions=expressions, leave_secrets=True)
    bound = headers.filled(filling, template, pointer)
    filling.raise_if_any()
    return bound


def bind_data(
    template: Json, values: Mapping[str, Json], pointer: str = "data", *, expressions: bool = False
) -> Json:
    """Data in which only placeholders of secrets are left, for `fill_data` with `{"secrets": ...}`.

    Both fillings without `expressions` the second time: a value is no expression either.
    """
    filling = Filling(Values(values), secrets=True, expressions=expressions, leave_secrets=True)
    bound = data.filled(filling, template, pointer)
    filling.raise_if_any()
    return bound


def with_query(address: str, more: str) -> str:
    """A URL with more query behind its own."""
    if not more:
        return address
    return f"{address}{'&' if '?' in address else '?'}{more}"


def redacted(values: Mapping[str, Json]) -> dict[str, Json]:
    """The values with each secret as ***: fill the same template with them for a log."""
    secrets = values.get(scope.SECRETS)
    masked = dict.fromkeys(secrets, _MASK) if isinstance(secrets, Mapping) else {}
    return {**values, scope.SECRETS: masked}
