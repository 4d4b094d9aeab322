"""Range requests for one range of bytes (RFC 9110, section 14)."""

import re
from enum import Enum

_ONE = re.compile(r"bytes=[ \t]*(?P<first>[0-9]{0,19})-(?P<last>[0-9]{0,19})[ \t]*", re.ASCII | re.IGNORECASE)


class Wanted(Enum):
    """The two answers that are no range."""

    WHOLE = "whole"
    NOTHING = "nothing"


def wanted(header: str | None, if_range: str | None, etag: str, size: int) -> tuple[int, int] | Wanted:
    """The bytes to send, as (start, end) with `end` behind the last one.

    WHOLE for what a server may leave unheeded: no range, another unit, several ranges, another form, or an
    `If-Range` that names anything but this `etag` (strong, with its quotes). NOTHING (416) for a range that
    lies behind the end.
    """
    match = _ONE.fullmatch(header) if header else None
    if match is None or (if_range is not None and if_range.strip() != etag):
        return Wanted.WHOLE
    first, last = match["first"], match["last"]
    backwards = first and last and int(last) < int(first)
    if backwards or not (first or last):
        return Wanted.WHOLE
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    return (start, end) if start < end else Wanted.NOTHING
