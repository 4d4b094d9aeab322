"""What a receiver's answer says: its body unpacked and read, within bounds, whatever it is.

A body is JSON only if it says so (or says nothing) and is a document that every reader of events can hold.
All else is text; and what is no text is bytes. None of it is an error: the status alone decides that.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import msgspec

from services.contracts.commands import Json
from services.contracts.numbers import exact
from services.language.values import Unfit, check_lasting
from services.runtime.exchange import Response

_GZIP = 31
WINDOW_BITS: Mapping[str, tuple[int, ...]] = {"gzip": (_GZIP,), "x-gzip": (_GZIP,), "deflate": (15, -15)}
"""zlib's words for frames; some send deflate without its own."""
MEMBERS_MAX = 100
"""Of one gzip; each costs a copy of all that follow."""
READ_BYTES_MAX = 128 * 1024
"""A larger body is never a result, only a file: it could not come down to the bytes of one."""
CHARSETS = frozenset({"us-ascii", "utf-8", "utf8", "iso-8859-1", "latin1", "windows-1252"})
HEADERS_KEPT = ("content-type", "location", "etag", "retry-after", "x-request-id")
HEADER_CHARS_MAX = 2_048
_BOM = b"\xef\xbb\xbf"


class Unreadable(Exception):
    """The body cannot be had from what came."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Body:
    """`value` is what a JSON body says, or the text of another one; it is null for bytes, for an empty body,
    and for one above READ_BYTES_MAX, of which nobody has looked into the JSON."""

    content: bytes
    form: Literal["json", "text", "bytes"]
    value: Json = None

    @property
    def is_read(self) -> bool:
        """Whether `value` is all of it."""
        return self.form != "bytes" and len(self.content) <= READ_BYTES_MAX


def unpacked(response: Response, bytes_max: int) -> bytes:
    """The body without its content encoding, at most `bytes_max`. Raises Unreadable."""
    listed = response.headers.get("content-encoding", "").lower().split(",")
    encodings = [name for name in map(str.strip, listed) if name not in ("", "identity")]
    if not response.body or not encodings:
        return response.body
    if len(encodings) > 1:
        raise Unreadable("response_encoding", f"the answer is encoded {len(encodings)} times; one is read")
    name = encodings[0]
    if name not in WINDOW_BITS:
        known = ", ".join(WINDOW_BITS)
        raise Unreadable("response_encoding", f"the answer is encoded as {name[:40]!r}; read are {known}")
    for bits in WINDOW_BITS[name]:
        try:
            return _inflated(response.body, bits, bytes_max)
        except zlib.error:
            continue
    raise Unreadable("bad_response", f"the answer's {name} is damaged")


def read(content: bytes, content_type: str) -> Body:
    """What the body says; see the module."""
    essence, _, parameters = content_type.lower().partition(";")
    essence = essence.strip()
    says_json = not essence or essence in ("application/json", "text/json") or essence.endswith("+json")
    if not content:
        return Body(content, "text")
    if len(content) > READ_BYTES_MAX:
        is_text = _decoded(content, parameters) is not None
        return Body(content, ("json" if says_json else "text") if is_text else "bytes")
    if says_json:
        try:
            return Body(content, "json", _parsed(content))
        except (msgspec.MsgspecError, UnicodeDecodeError, Unfit, RecursionError):
            pass  # it is text then
    text = _decoded(content, parameters)
    return Body(content, "bytes" if text is None else "text", text)


def kept_headers(response: Response) -> dict[str, str]:
    """The headers that a result shows."""
    found = {name: response.headers.get(name) for name in HEADERS_KEPT}
    return {name: value[:HEADER_CHARS_MAX] for name, value in found.items() if value is not None}


def _inflated(packed: bytes, bits: int, bytes_max: int) -> bytes:
    found = bytearray()
    for _ in range(MEMBERS_MAX):
        machine = zlib.decompressobj(bits)
        found += machine.decompress(packed, bytes_max + 1 - len(found))
        if len(found) > bytes_max:
            raise Unreadable("response_too_large", f"the answer unpacks to more than {bytes_max} bytes")
        if not machine.eof:
            raise zlib.error("truncated")
        packed = machine.unused_data if bits == _GZIP else b""
        if not packed:
            return bytes(found)
    raise zlib.error("too many members")


def _parsed(content: bytes) -> Json:
    value = _DECODER.decode(content.removeprefix(_BOM))
    check_lasting(value, READ_BYTES_MAX * 16)  # for its other limits: depth, numbers, surrogates, NUL
    return value


def _own(text: str) -> float | Decimal:
    """A float where the text is one of its own forms: the shortest, 17 digits (C's %.17g), all of its digits.
    Any other number is a Decimal, which is unfit, so that its digits stay in a text."""
    number = exact(text)
    if isinstance(number, float):
        return number
    value = float(text)
    own = math.isfinite(value) and number in (Decimal(f"{value:.17g}"), Decimal(value))
    return value if own else number


_DECODER = msgspec.json.Decoder(float_hook=_own)


def _decoded(content: bytes, parameters: str) -> str | None:
    named = dict(pair.partition("=")[::2] for pair in parameters.replace(" ", "").split(";"))
    charset = named.get("charset", "utf-8").strip("\"'")
    try:
        text = content.decode(charset if charset in CHARSETS else "utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
