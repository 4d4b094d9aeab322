"""Placeholders in JSON data: filled in the parsed tree, so that no value can change its shape."""

from collections.abc import Mapping
from typing import Any

from services.contracts.commands import Json
from services.language.paths import MISSING
from services.language.placeholders.filling import BYTES_MAX, Filling, member
from services.language.values import DEPTH_MAX, Unfit, as_text, kind, measured


def filled(filling: Filling, template: Json, pointer: str) -> Json:
    """The tree, every placeholder replaced: as a whole value it keeps its type, within text it is text."""
    result = _filled(filling, template, pointer, 1)
    try:
        measured(result, BYTES_MAX)
    except Unfit as unfit:
        if not filling.errors:
            filling.add(pointer, str(unfit))
    return result


def _filled(filling: Filling, template: Json, pointer: str, depth: int) -> Json:
    value = filling.whole(template, pointer)
    if value is not MISSING:
        return value
    match template:
        case str():
            return filling.text(template, pointer, as_text)
        case list() | tuple() | Mapping() if depth > DEPTH_MAX:
            filling.add(pointer, f"expected at most {DEPTH_MAX} levels of lists and objects, found more")
            return None
        case list() | tuple():
            return [_filled(filling, one, f"{pointer}[{i}]", depth + 1) for i, one in enumerate(template)]
        case Mapping():
            return _members(filling, template, pointer, depth)
        case _:
            return template


def _members(filling: Filling, template: Mapping[Any, Json], pointer: str, depth: int) -> dict[str, Json]:
    result = {}
    for key, one in template.items():
        at = member(pointer, key)
        if not isinstance(key, str):
            filling.add(at, f"expected a key that is text, found {kind(key)}")
            continue
        result[filling.key(key, at, "a key")] = _filled(filling, one, at, depth + 1)
    return result
