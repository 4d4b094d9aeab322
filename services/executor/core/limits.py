"""Concurrency limits: how many executions may have steps out at one time, by a key they share.

    [{"key": "pipeline:<id>" | "tenant" | "key:<text>", "max": n, "holds_paused": bool}]

A key is shared within its tenant. An execution takes the permits of its limits before its first step and
gives them back when it ends; while it waits or is paused, and nothing of it runs, it gives back those that do
not hold when paused. No two wait for each other, because all take their permits in the order of the keys. A
key's place must not depend on `holds_paused`, which is each execution's own; and a permit that comes before
one that is kept over a pause is kept too, for it could not be taken again in order.
"""

from collections.abc import Collection, Iterator
from typing import Any

from msgspec import Struct

from services.contracts.commands import JobRequested
from services.contracts.errors import FieldError

KEY_CHARS_MAX = 300
LIMITS_MAX = 10
MAX_MAX = 10_000
_FIELDS = {"key", "max", "holds_paused"}


class Limit(Struct, frozen=True, gc=False):
    """`key` begins with the tenant; `holds_paused`: an execution keeps its permit while it waits."""

    key: str
    max: int
    holds_paused: bool


def of(request: JobRequested | None) -> tuple[Limit, ...]:
    """The limits of a request whose `faults` are none, in the order in which their permits are taken."""
    if request is None or not request.limits:
        return ()
    found = [_limit(request.tenant, entry) for entry in request.limits]
    return tuple(sorted(found, key=lambda limit: limit.key))


def given_back(wanted: tuple[Limit, ...], held: Collection[str]) -> tuple[Limit, ...]:
    """The limits that an execution leaves while it waits: those behind the last of `held` that it keeps."""
    kept = (place for place, limit in enumerate(wanted, 1) if limit.holds_paused and limit.key in held)
    return wanted[max(kept, default=0) :]


def faults(request: JobRequested) -> Iterator[FieldError]:
    """What is wrong with the limits of a request."""
    limits: Any = request.limits
    if limits is None:
        return
    if not isinstance(limits, list) or len(limits) > LIMITS_MAX:
        yield FieldError("limits", f"expected a list of at most {LIMITS_MAX} limits")
        return
    seen: set[str] = set()
    for index, entry in enumerate(limits):
        if not _is_limit(entry):
            wanted = (
                f"{{key: 1 to {KEY_CHARS_MAX} characters, max: 1 to {MAX_MAX}, holds_paused: true or false}}"
            )
            yield FieldError(f"limits[{index}]", f"expected {wanted}")
        elif entry["key"] in seen:
            yield FieldError(f"limits[{index}].key", f'"{entry["key"]}" stands twice in the list')
        else:
            seen.add(entry["key"])


def _limit(tenant: str, entry: Any) -> Limit:
    return Limit(f"{tenant}/{entry['key']}", entry["max"], entry.get("holds_paused", False))


def _is_limit(entry: Any) -> bool:
    if not isinstance(entry, dict) or not {"key", "max"} <= entry.keys() <= _FIELDS:
        return False
    key, most = entry["key"], entry["max"]
    named = isinstance(key, str) and 1 <= len(key) <= KEY_CHARS_MAX and "\0" not in key
    counted = isinstance(most, int) and not isinstance(most, bool) and 1 <= most <= MAX_MAX
    return named and counted and isinstance(entry.get("holds_paused", False), bool)
