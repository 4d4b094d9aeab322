"""Reading request bodies off the wire: capped in size and time before anything is parsed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from services.api.problems import Problem
from services.jobs import documents
from services.jobs.documents import Malformed

WITHIN_S = 10.0
_JSON_TYPES = ("application/json", "text/json")
_YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
_REFUSED_TYPES = ("multipart/", "image/", "audio/", "video/")
_CLOSE = {"Connection": "close"}  # the rest of the body is not worth reading


Parse = Callable[[bytes, bool], Awaitable[Any]]
"""`parse(text, is_json)`: the value. Raises Malformed."""


async def read(request: Request, bytes_max: int) -> bytes:
    """The whole body. Raises Problem: 408, 413, 415."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise Problem(
            "unsupported-media-type",
            "compressed bodies are refused: send no Content-Encoding",
            headers=_CLOSE,
        )
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(WITHIN_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                chunks.append(chunk)
    except TimeoutError:
        raise too_slow() from None
    except ClientDisconnect:
        raise Problem("malformed-body", "the body was cut off") from None
    return b"".join(chunks)


def too_slow() -> Problem:
    """A body that does not arrive."""
    return Problem("body-timeout", f"expected the whole body within {WITHIN_S:g} s", headers=_CLOSE)


async def read_json(request: Request, bytes_max: int) -> Any:
    """The value of a JSON body. Raises Problem."""
    media_type = _media_type(request)
    if media_type and media_type not in _JSON_TYPES and not media_type.endswith("+json"):
        raise Problem(
            "unsupported-media-type",
            f"expected Content-Type: application/json, found {media_type[:80]}",
            headers=_CLOSE,
        )
    return _parsed(documents.parse_json, await read(request, bytes_max))


async def read_json_or_yaml(request: Request, bytes_max: int, parse: Parse) -> Any:
    """The value of a JSON or YAML body; where Content-Type does not say, the text does. Raises Problem."""
    media_type = _media_type(request)
    if media_type.startswith(_REFUSED_TYPES):
        raise Problem(
            "unsupported-media-type",
            f"expected application/json or application/yaml, found {media_type[:80]}",
            headers=_CLOSE,
        )
    raw = await read(request, bytes_max)
    is_json = media_type in _JSON_TYPES or media_type.endswith("+json")
    if is_json or (media_type not in _YAML_TYPES and raw.lstrip()[:1] in (b"{", b"[")):
        return await _parsed_by(parse, raw, is_json=True)
    return await _parsed_by(parse, raw, is_json=False)


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; instants are RFC 3339 in UTC."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _parsed(parse: Any, raw: bytes) -> Any:
    try:
        return parse(raw)
    except Malformed as error:
        raise Problem("malformed-body", str(error), error.errors) from None


async def _parsed_by(parse: Parse, raw: bytes, *, is_json: bool) -> Any:
    try:
        return await parse(raw, is_json)
    except Malformed as error:
        raise Problem("malformed-body", str(error), error.errors) from None


def _too_large(bytes_max: int) -> Problem:
    return Problem("body-too-large", f"expected at most {bytes_max} bytes", headers=_CLOSE)
