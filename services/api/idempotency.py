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


def conflict() -> Problem:
    """The answer to another body under a key that was used."""
    return Problem(
        "idempotency-conflict",
        "this Idempotency-Key was used with another body; use a new key for a new request",
    )
