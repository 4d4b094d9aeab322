"""What a callback in a request may be (S2 2.5): `{events?, url, method?, headers?, secret?}`."""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from services.contracts import urls
from services.contracts.errors import FieldError
from services.contracts.events import ALIASES, TYPES

METHODS = ("POST", "PUT")
SECRET_PREFIX = "whsec_"
MAX_EVENTS = 32
MAX_HEADERS = 32
MAX_NAME_CHARS = 128
MAX_VALUE_CHARS = 4096
MAX_HEADERS_CHARS = 16_384

# Ours to set (the signature covers the body, not these), or the connection's.
FORBIDDEN_HEADERS = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect",
        "host", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
    }
)  # fmt: skip
FORBIDDEN_PREFIX = "webhook-"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t -~]*")


def check_callback(body: Any, pointer: str = "callback") -> list[FieldError]:
    """Every fault of one callback as the caller sent it; `pointer` is where it stands in the request.

    Values of headers, the secret and the URL (its query may hold a token) are never repeated in a message.
    """
    if not isinstance(body, Mapping):
        return [FieldError(pointer, f"expected an object, found {_kind(body)}")]
    errors = [
        FieldError(f"{pointer}.{name}", f"unknown field; known: {', '.join(_CHECKS)}")
        for name in body
        if name not in _CHECKS
    ]
    if "url" not in body:
        errors.append(FieldError(f"{pointer}.url", "expected the URL to call, found nothing"))
    for name, check in _CHECKS.items():
        if name in body:
            errors.extend(check(body[name], f"{pointer}.{name}"))
    return errors


def header_fault(name: str) -> str | None:
    """Why a caller may not set a header of this name, or None."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        return f"expected a header name (an HTTP token of at most {MAX_NAME_CHARS} characters)"
    lower = name.lower()
    if lower in FORBIDDEN_HEADERS or lower.startswith(FORBIDDEN_PREFIX):
        return "this header is set by Millstream; remove it"
    return None


def value_fault(text: str) -> str | None:
    """Why this text cannot be the value of a header, without repeating it, or None."""
    if len(text) > MAX_VALUE_CHARS:
        return f"expected at most {MAX_VALUE_CHARS} characters, found {len(text)}"
    if not _VALUE.fullmatch(text):
        return "expected printable ASCII; line breaks, NUL and other characters are refused"
    return None


def is_signing_secret(text: str) -> bool:
    """Whether this is a secret of Standard Webhooks: `whsec_` and the base64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(SECRET_PREFIX) and 24 <= len(key) <= 64


def _events(value: Any, pointer: str) -> Iterator[FieldError]:
    if not isinstance(value, list) or len(value) > MAX_EVENTS:
        yield FieldError(
            pointer, f"expected a list of at most {MAX_EVENTS} event names, found {_kind(value)}"
        )
        return
    known = ", ".join([*TYPES, *ALIASES])
    for index, name in enumerate(value):
        if not isinstance(name, str):
            yield FieldError(f"{pointer}[{index}]", f"expected an event name, found {_kind(name)}")
        elif name not in TYPES and name not in ALIASES:
            yield FieldError(f"{pointer}[{index}]", f'unknown event "{name[:80]}"; known: {known}')


def _url(value: Any, pointer: str) -> Iterator[FieldError]:
    if not isinstance(value, str):
        yield FieldError(pointer, f"expected a URL, found {_kind(value)}")
        return
    try:
        urls.parse(value)
    except ValueError as error:
        yield FieldError(pointer, str(error))


def _method(value: Any, pointer: str) -> Iterator[FieldError]:
    if value not in METHODS:
        found = f'"{value[:80]}"' if isinstance(value, str) else _kind(value)
        yield FieldError(pointer, f"expected one of {', '.join(METHODS)}, found {found}")


def _headers(value: Any, pointer: str) -> Iterator[FieldError]:
    if not isinstance(value, Mapping):
        yield FieldError(pointer, f"expected an object of names and values, found {_kind(value)}")
        return
    if len(value) > MAX_HEADERS:
        yield FieldError(pointer, f"expected at most {MAX_HEADERS} headers, found {len(value)}")
        return
    total = sum(len(name) + len(text) for name, text in value.items() if isinstance(text, str))
    if total > MAX_HEADERS_CHARS:
        yield FieldError(pointer, f"expected at most {MAX_HEADERS_CHARS} characters in all, found {total}")
    seen: set[str] = set()
    for name, text in value.items():
        place = f'{pointer}["{name[:MAX_NAME_CHARS]}"]'
        if fault := header_fault(name):
            yield FieldError(place, fault)
        elif name.lower() in seen:
            yield FieldError(place, "this name is given twice; names differ by more than case")
        seen.add(name.lower())
        yield from _header_value(text, place)


def _header_value(text: Any, place: str) -> Iterator[FieldError]:
    if not isinstance(text, str):
        yield FieldError(place, f"expected a string, found {_kind(text)}")
    elif fault := value_fault(text):
        yield FieldError(place, fault)


def _secret(value: Any, pointer: str) -> Iterator[FieldError]:
    if value is None:
        return
    if not isinstance(value, str) or not is_signing_secret(value):
        found = f"{_kind(value)} of another form (not shown)"
        yield FieldError(
            pointer, f'expected "{SECRET_PREFIX}" and the base64 of 24 to 64 bytes, found {found}'
        )


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return f"a list of {len(value)}"
        case _:
            return "an object"


_CHECKS: Mapping[str, Callable[[Any, str], Iterator[FieldError]]] = {
    "events": _events,
    "url": _url,
    "method": _method,
    "headers": _headers,
    "secret": _secret,
}
