"""Placeholders in header values: one header stays one header, whatever the value."""

import re
from collections.abc import Mapping

from services.contracts import callbacks
from services.contracts.commands import Json
from services.language.paths import MISSING
from services.language.placeholders.filling import Filling, member
from services.language.values import Unfit, kind, scalar_text

HEADERS_MAX = callbacks.MAX_HEADERS
FORBIDDEN = callbacks.FORBIDDEN_HEADERS - {"content-type", "user-agent"}
"""Headers that frame a message or belong to the connection: Host, Content-Length, Transfer-Encoding, ..."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def filled(filling: Filling, template: Json, pointer: str) -> dict[str, str]:
    """The headers by the names of the template."""
    if not isinstance(template, Mapping):
        filling.add(pointer, f"expected an object of names and values, found {kind(template)}")
        return {}
    if len(template) > HEADERS_MAX:
        filling.add(pointer, f"expected at most {HEADERS_MAX} headers, found {len(template)}")
        return {}
    result: dict[str, str] = {}
    seen: set[str] = set()
    for key, value in template.items():
        at = member(pointer, key)
        name = filling.key(str(key), at, "a header's name")
        if fault := _name_fault(name, seen):
            filling.add(at, fault)
        seen.add(name.lower())
        result[name] = _value(filling, value, at)
    return result


def _name_fault(name: str, seen: set[str]) -> str | None:
    if not _NAME.fullmatch(name) or len(name) > callbacks.MAX_NAME_CHARS:
        return f"expected a header name (an HTTP token of at most {callbacks.MAX_NAME_CHARS} characters)"
    if name.lower() in FORBIDDEN:
        return "this header is set by Millstream; remove it"
    if name.lower() in seen:
        return "this name is given twice; names differ by more than case"
    return None


def _value(filling: Filling, template: Json, pointer: str) -> str:
    whole = filling.whole(template, pointer)
    try:
        if whole is not MISSING:
            text = scalar_text(whole)
        elif isinstance(template, str):
            text = filling.text(template, pointer, scalar_text)
        else:
            text = scalar_text(template)
    except Unfit as unfit:
        filling.add(pointer, str(unfit))
        return ""
    if fault := callbacks.value_fault(text):
        filling.add(pointer, fault)
    return text
