"""HTTP calls: the parameters of an API step (S3 3.4-3.8), and of a service's action, which are the same.

    url: https://shop.example/orders/${order}?q=${query}
    method: POST
    headers: {authorization: "Bearer ${secrets.shop}"}
    query: {page: 1}                    # more of it, each value encoded
    data: {amount: "${amount}"}         # any JSON, lists too; a value alone keeps its type
    success_codes: [200, 2xx, 300-399]  # 200 alone when left out (S3 3.10)
    allow_host: false                   # whether values may stand in scheme, host and port
    response_bytes_max: 1048576
    timeout_s: 30                       # of one call; the step's own: an attempt, waits included
    idempotency_header: Idempotency-Key # "" for none

Placeholders and expressions stay as written: the manager fills them when the step is asked for.
"""

import re
from collections.abc import Mapping
from typing import Any

from services.contracts.commands import Json
from services.jobs.fields import Fields, listed, shown
from services.jobs.pipeline import policies
from services.jobs.pipeline.work import Place, Work

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
REQUIRED = ("url", "headers", "data", "method")
MERGED = ("headers", "query", "data")
OWN_KEYS = (*MERGED, "success_codes", "response_bytes_max", "timeout_s", "idempotency_header")
KEYS = ("url", "method", "allow_host", *OWN_KEYS)
CODES_MAX = 50
RESPONSE_BYTES_MAX = 16 * 1024 * 1024
TIMEOUT_MAX_S = 3600
_CODES = re.compile(r"[2-5]xx|[2-5][0-9]{2}(-[2-5][0-9]{2})?", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,100}")


def read(fields: Fields, required: tuple[str, ...] = REQUIRED) -> Work:
    """The call that an object of KEYS describes, with what it says and no more; faults are noted."""
    _refuse_missing(fields, required)
    parameters: dict[str, Json] = {"method": _method(fields)}
    if policies.flag(fields, "allow_host"):
        parameters["allow_host"] = True
    places: list[Place] = []
    if fields.get("url") is not None:
        parameters["url"] = fields.get("url")
        places.append(
            Place("url", fields.pointer("url"), parameters["url"], parameters.get("allow_host", False))
        )
    own = read_own(fields)
    return Work({**parameters, "headers": {}, **own.parameters}, (*places, *own.places))


def read_own(fields: Fields) -> Work:
    """The parts of a call that whoever uses an action may add to it."""
    parameters: dict[str, Json] = {}
    places: list[Place] = []
    for member in MERGED:
        value = fields.get(member)
        if value is None:
            continue
        if member != "data" and not isinstance(value, Mapping):
            fields.faults.add(fields.pointer(member), f"expected an object, found {shown(value)}")
            continue
        parameters[member] = dict(value) if isinstance(value, Mapping) else value
        places.append(Place(member, fields.pointer(member), parameters[member]))
    parameters |= {
        "success_codes": _codes(fields),
        "response_bytes_max": policies.whole(fields, "response_bytes_max", RESPONSE_BYTES_MAX, None),
        "timeout_s": policies.whole(fields, "timeout_s", TIMEOUT_MAX_S, None),
        "idempotency_header": _key_header(fields),
    }
    return Work({key: value for key, value in parameters.items() if value is not None}, tuple(places))


def merged(first: Work, second: Work) -> Work:
    """Both in one: the second one's parameters win, its headers, query and data are added. The second
    one's data takes the place of the first one's where either is no object."""
    parameters = {**first.parameters, **second.parameters}
    for member in MERGED:
        base, more = first.parameters.get(member), second.parameters.get(member)
        if isinstance(base, Mapping) and isinstance(more, Mapping):
            parameters[member] = _added(base, more, any_case=member == "headers")
    return Work(parameters, (*first.places, *second.places))


def _added(base: Mapping[str, Any], more: Mapping[str, Any], *, any_case: bool) -> dict[str, Json]:
    if not any_case:
        return {**base, **more}
    replaced = {name.lower() for name in more}
    return {**{name: value for name, value in base.items() if name.lower() not in replaced}, **more}


def _refuse_missing(fields: Fields, required: tuple[str, ...]) -> None:
    wanted = {
        "url": "a URL",
        "method": f"one of {listed(METHODS)}",
        "headers": "an object (it may be empty)",
        "data": "JSON (it may be an empty object)",
    }
    for name in required:
        if fields.get(name) is None:
            fields.faults.add(fields.pointer(name), f"expected {wanted[name]}, found nothing")


def _method(fields: Fields) -> str:
    value = fields.get("method")
    if value is None:
        return "GET"
    if not isinstance(value, str) or value.upper() not in METHODS:
        message = f"unknown method {shown(value)}; known: {listed(METHODS)}"
        fields.faults.add(fields.pointer("method"), message)
        return "GET"
    return value.upper()


def _codes(fields: Fields) -> list[int | str] | None:
    found: dict[int | str, int] = {}
    for pointer, item in fields.items("success_codes", count_max=CODES_MAX):
        if isinstance(item, bool) or not isinstance(item, int | str) or not _CODES.fullmatch(str(item)):
            wanted = 'a status from 200 to 599 or a range such as "200-299" or "2xx"'
            fields.faults.add(pointer, f"expected {wanted}, found {shown(item)}")
        elif item in found:
            fields.faults.add(pointer, f"{item} is already at index {found[item]}")
        else:
            found[item] = len(found)
    return [*found] or None


def _key_header(fields: Fields) -> str | None:
    value = fields.get("idempotency_header")
    if value is not None and (not isinstance(value, str) or not _HEADER.fullmatch(value)):
        message = f'expected the name of a header, or "" for none, found {shown(value)}'
        fields.faults.add(fields.pointer("idempotency_header"), message)
        return None
    return value
