"""What an API step sends: its parameters read and its secrets filled in.

The manager has filled every other placeholder. In headers and data it left `${secrets.<name>}` for the
worker, and doubled the dollars before each brace that came out of a value (`$${`): filling once more, by the
rules of the language, gives the secrets, and every value as it was.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from services.contracts import ids
from services.contracts.commands import Json, StepRequested
from services.language import placeholders, scope
from services.language.values import as_text

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
BARE_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS")
"""With these, data that is empty means that there is no body."""
TIMEOUT_S = 30.0
RESPONSE_BYTES = 1 << 20
RESPONSE_BYTES_MAX = 16 << 20
IDEMPOTENCY_HEADER = "Idempotency-Key"
JSON_TYPE = "application/json"

_CODES = re.compile(r"([1-5])xx|([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.IGNORECASE)


class Unusable(Exception):
    """No request can be made of these parameters, now or ever; the message repeats no value."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    """S3 3.4-3.8, and what we add. `allow_host` has been the manager's business."""

    method: str
    url: str
    headers: dict[str, Any] = {}
    query: dict[str, Any] | str | None = None
    data: Any = None
    timeout_s: Annotated[float, Meta(gt=0, le=3_600)] = TIMEOUT_S
    success_codes: list[int | str] = msgspec.field(default_factory=lambda: [200])
    response_bytes_max: Annotated[int, Meta(ge=1, le=RESPONSE_BYTES_MAX)] = RESPONSE_BYTES
    idempotency_header: str | None = IDEMPOTENCY_HEADER
    allow_host: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One call, ready to be sent. `codes` are those of success; `secrets` must show nowhere."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout_s: float
    response_bytes_max: int
    codes: tuple[range, ...]
    secrets: tuple[str, ...]

    def succeeded(self, status: int) -> bool:
        """Whether this answer is what the step wanted."""
        return any(status in codes for codes in self.codes)


def read(step: StepRequested, secrets: Mapping[str, str]) -> Request:
    """The call that the step asks for. Raises Unusable."""
    try:
        given = msgspec.convert(step.parameters, Parameters)
    except msgspec.ValidationError as error:
        raise Unusable("bad_parameters", str(error)) from None
    method = given.method.upper()
    if method not in METHODS:
        raise Unusable("bad_parameters", f"method: expected one of {', '.join(METHODS)}")
    for member, template in (("url", given.url), ("query", given.query)):
        if any(path[0] == scope.SECRETS for path in placeholders.names(template)):
            raise Unusable("secret_in_url", f"{member}: no secret can stand here: logs and proxies keep it")
    _check_names("headers", given.headers, secrets)
    _check_names("data", given.data, secrets)
    try:
        values = {scope.SECRETS: secrets}
        body = _body(method, placeholders.fill_data(given.data, values))
        headers = placeholders.fill_headers(given.headers, values)
        headers |= _our_headers(headers, given, body, _key(step))
    except placeholders.Unfilled as error:
        raise Unusable("bad_parameters", str(error)) from None
    return Request(
        method=method,
        url=placeholders.with_query(given.url, _query(given.query)),
        headers=headers,
        body=body,
        timeout_s=min(given.timeout_s, float(step.timeout_s)),
        response_bytes_max=given.response_bytes_max,
        codes=tuple(map(_codes, given.success_codes)),
        secrets=tuple(secrets.values()),
    )


def _key(step: StepRequested) -> str:
    """The same for every attempt of a visit, so that the receiver can tell a repetition."""
    return ids.step_key(step.execution_id, step.step, step.visit)


def _check_names(member: str, template: Json, secrets: Mapping[str, str]) -> None:
    for path in sorted(placeholders.names(template), key=str):
        if path[0] != scope.SECRETS:
            raise Unusable("unresolved_placeholder", f"{member}: found a placeholder that nobody has filled")
        if len(path) != 2 or path[1] not in secrets:
            name = ".".join(map(str, path[1:]))[:100]
            message = (
                f"{member}: the tenant has no secret {name!r}; add it to the worker's MILLSTREAM_SECRETS"
            )
            raise Unusable("unknown_secret", message)


def _body(method: str, data: Json) -> bytes:
    if data is None or (method in BARE_METHODS and data in ({}, [], "")):
        return b""
    return msgspec.json.encode(data)


def _our_headers(theirs: Mapping[str, str], given: Parameters, body: bytes, key: str) -> dict[str, str]:
    """Those that the step did not set itself."""
    ours = {given.idempotency_header: key} if given.idempotency_header else {}
    if body:
        ours["Content-Type"] = JSON_TYPE
    known = {name.lower() for name in theirs}
    missing = {name: value for name, value in ours.items() if name.lower() not in known}
    return placeholders.fill_headers(missing, {}, "idempotency_header")


def _query(query: Mapping[str, Any] | str | None) -> str:
    if not isinstance(query, Mapping):
        return query or ""
    pairs = []
    for name, value in query.items():
        entries = value if isinstance(value, list) else [value]
        pairs += [f"{_encoded(name)}={_encoded(as_text(one))}" for one in entries if one is not None]
    return "&".join(pairs)


def _encoded(text: str) -> str:
    return quote(text, safe="")


def _codes(code: int | str) -> range:
    match = _CODES.fullmatch(str(code))
    if match is None:
        wanted = 'a status such as 201, or a range such as "200-299" or "2xx"'
        raise Unusable("bad_parameters", f"success_codes: expected {wanted}")
    hundred, first, last = match.groups()
    if hundred:
        return range(int(hundred) * 100, int(hundred) * 100 + 100)
    return range(int(first), int(last or first) + 1)
