"""Placeholders in a query given as an object: every value stays the value of its own parameter."""

from collections.abc import Iterator, Mapping
from urllib.parse import quote

from services.contracts import urls
from services.contracts.commands import Json
from services.language.paths import MISSING
from services.language.placeholders.filling import BYTES_MAX, Filling, member
from services.language.values import Unfit, as_text, kind, measured


def filled(filling: Filling, template: Json, pointer: str) -> str:
    """`a=1&b=2`, percent-encoded: of a list one pair for each entry, of null none, of an object its JSON."""
    if not isinstance(template, Mapping):
        filling.add(pointer, f"expected an object of names and values, found {kind(template)}")
        return ""
    pairs: list[str] = []
    for key, value in template.items():
        at = member(pointer, key)
        name = filling.key(str(key), at, "a parameter's name")
        pairs += (f"{encoded(name)}={encoded(text)}" for text in _texts(filling, value, at))
    result = "&".join(pairs)
    if len(result) > urls.MAX_LENGTH and not filling.errors:
        filling.add(pointer, f"expected at most {urls.MAX_LENGTH} characters, found {len(result)}")
    return result


def encoded(text: str) -> str:
    """Everything but unreserved characters as %XX of its UTF-8."""
    return quote(text, safe="")


def written(value: Json) -> str:
    """The text of a value within a text of a URL; an object or list is its JSON, null has none."""
    if value is None:
        raise Unfit("expected a value, found null")
    return as_text(value)


def _texts(filling: Filling, template: Json, pointer: str) -> Iterator[str]:
    if isinstance(template, list | tuple):
        for index, one in enumerate(template):
            yield from _entry(filling, one, f"{pointer}[{index}]")
    else:
        yield from _entry(filling, template, pointer)


def _entry(filling: Filling, template: Json, pointer: str) -> Iterator[str]:
    whole = filling.whole(template, pointer)
    if whole is MISSING and isinstance(template, str):
        yield filling.text(template, pointer, written)
        return
    value = template if whole is MISSING else whole
    try:
        measured(value, BYTES_MAX)
    except Unfit as unfit:
        filling.add(pointer, str(unfit))
        return
    entries = value if isinstance(value, list | tuple) else [value]
    yield from (as_text(one) for one in entries if one is not None)
