"""The peer: the least that takes a submit on the same server, checks it, and answers. It stores nothing."""

from typing import Any

import msgspec


class Submission(msgspec.Struct, forbid_unknown_fields=True):
    """The fields that the load sends."""

    jobType: str  # noqa: N815 as callers write it
    name: str
    tag: str | None = None
    params: dict[str, Any] = {}


_DECODER = msgspec.json.Decoder(Submission)
_HEADERS = [(b"content-type", b"application/json")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Plain ASGI."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    submission = _DECODER.decode(body)
    answer = msgspec.json.encode({"status": "pending", "name": submission.name})
    headers = [*_HEADERS, (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
