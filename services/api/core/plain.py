"""Plain bodies of `POST /v1/executions`, read at once: type, name, tag and params, nothing that needs care.

What this reads is what `bodies.parse_json` and `submission.read` make of the same bytes, and everything that
they would refuse, or that has other fields, gives None: their verdict counts, and their messages are shown.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from services.api.core.submission import Submission
from services.contracts import ids
from services.contracts.numbers import exact
from services.jobs.documents import INTEGER_MAX, INTEGER_MIN, KEY_CHARS_MAX

BYTES_MAX = 8_192  # so no limit on the number of values can be passed
DEPTH_MAX = 16


class _Body(Struct, forbid_unknown_fields=True, frozen=True):
    jobType: Annotated[str, Meta(max_length=100)]  # noqa: N815 as callers write it
    name: Annotated[str, Meta(min_length=1, max_length=200)] | UnsetType = UNSET
    tag: Annotated[str, Meta(max_length=50)] | UnsetType = UNSET
    params: dict[str, Any] | UnsetType = UNSET


_DECODER = msgspec.json.Decoder(_Body, float_hook=exact)


def read(raw: bytes) -> tuple[Submission, str] | None:
    """The submission and the hash of its body (as `ids.body_hash` makes it), or None."""
    if len(raw) > BYTES_MAX or b"\\u0000" in raw:
        return None
    try:
        body = _DECODER.decode(raw)
        keys = 1 + (body.name is not UNSET) + (body.tag is not UNSET)
        params: dict[str, Any] = {}
        if body.params is not UNSET:
            params = body.params
            keys += 1 + _keys(params, DEPTH_MAX)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    # The decoder keeps the last of doubled keys. There are at least as many colons as keys in the text: if
    # there are no more than keys were read, none was doubled.
    if raw.count(b":") != keys:
        return None
    submission = Submission(
        job_type=body.jobType,
        name=body.jobType if body.name is UNSET else body.name,
        dataset=None,
        params=params,
        time_range=None,
        callbacks=(),
        tag=None if body.tag is UNSET else body.tag,
        actions=(),
        headers={},
    )
    return submission, ids.body_hash(body)


def _keys(value: Any, depth: int) -> int:
    """The number of keys in all objects. Raises ValueError for what must be looked at more closely."""
    if isinstance(value, str | bool | None):
        return 0
    if not depth:
        raise ValueError("deep")
    match value:
        case dict():
            if any(len(key) > KEY_CHARS_MAX for key in value):
                raise ValueError("long key")
            return len(value) + sum([_keys(item, depth - 1) for item in value.values()])
        case list():
            return sum([_keys(item, depth - 1) for item in value])
        case float():
            return 0
        case int() if INTEGER_MIN <= value <= INTEGER_MAX:
            return 0
    raise ValueError("a number to be looked at")
