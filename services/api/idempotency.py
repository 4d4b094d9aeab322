"""The header `Idempotency-Key` of /v1: the same key with the same body is the same wish."""

import re

from fastapi import Request

from services.api.problems import Problem, invalid

KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?", re.ASCII)


def key_of(request: Request) -> str | None:
    """The key, if one was sent. Raises Problem."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1 or not KEY.fullmatch(values[0]):
        raise invalid("Idempotency-Key", "expected one header of 1 to 255 printable ASCII characters")
    return values[0]


HEADER = "this Idempotency-Key"


def conflict(named: str = HEADER) -> Problem:
    """The answer to another request under a key that was used; `named` is what the caller sent as the key."""
    return Problem(
        "idempotency-conflict", f"{named} was used with another body; use a new one for a new request"
    )
