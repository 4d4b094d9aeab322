"""Requests and answers as people may read them: without known secrets, and without what a name calls one."""

import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

from services.contracts.commands import Json
from services.contracts.secret_names import PATTERN, is_secret
from services.runtime.redaction import MASK, redact, words

BODY_CHARS = 3_500
"""Of a body in a step's log, whose lines have 4,000."""
HEADERS_CHARS = 2_500

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters by which a receiver could write on a reader's terminal."""
_PAIR = re.compile(rf"""(?i)({PATTERN}\w*["']?\s*[=:]\s*["']?(?:bearer\s+|basic\s+)?)[^\s,;&"'<}}]+""")


class Shown:
    """Shows what belongs to one call."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = words(secrets)
        # Also as a receiver may repeat them in a URL or in JSON.
        self._forms = words({form for secret in known for form in _forms(secret)})
        self._bytes = [form.encode() for form in self._forms]

    def plain(self, text: str) -> str:
        """The text without known secrets."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text

    def raw(self, content: bytes) -> bytes:
        """The bytes without known secrets."""
        for form in self._bytes:
            content = content.replace(form, MASK.encode())
        return content

    def value(self, value: Json) -> Json:
        """The JSON without known secrets; what a name calls a secret is left: it may be the step's result."""
        match value:
            case str():
                return self.plain(value)
            case list():
                return [self.value(one) for one in value]
            case dict():
                return {self.plain(key): self.value(one) for key, one in value.items()}
            case int() | float() if self.plain(text := str(value)) != text:
                return MASK
            case _:
                return value

    def url(self, url: str) -> str:
        """A URL for the log."""
        path, mark, query = url.partition("?")
        pairs = (pair.partition("=") for pair in query.split("&"))
        shown = "&".join(
            f"{name}={MASK}" if is_secret(name) else name + sign + value for name, sign, value in pairs
        )
        return self.plain(path + mark + shown)

    def headers(self, headers: Mapping[str, str]) -> str:
        """Headers for the log."""
        pairs = (f"{name}: {MASK if is_secret(name) else value}" for name, value in headers.items())
        return redact("; ".join(pairs), self._forms)[:HEADERS_CHARS]

    def body(self, content: bytes, value: Json = None, chars: int = BODY_CHARS) -> str:
        """A body for the log or a message; `value` is what it says, when it is JSON."""
        if value is not None:
            text = json.dumps(_unnamed(value), ensure_ascii=False)
        else:
            text = content.decode("utf-8", "replace")
        # Masked before it is cut, lest the cut leave half a secret; the pattern sees what is left.
        cut = redact(text, self._forms)[:chars]
        return _PAIR.sub(rf"\g<1>{MASK}", _CONTROL.sub("�", cut))


def _unnamed(value: Json) -> Json:
    match value:
        case list():
            return [_unnamed(one) for one in value]
        case dict():
            return {key: MASK if is_secret(key) else _unnamed(one) for key, one in value.items()}
        case _:
            return value


def _forms(secret: str) -> set[str]:
    escaped = {json.dumps(secret, ensure_ascii=ascii_)[1:-1] for ascii_ in (True, False)}
    return {secret, *escaped, quote(secret, safe=""), quote_plus(secret)}
