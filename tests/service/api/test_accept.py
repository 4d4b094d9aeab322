"""Who asks for a stream, and who does not want one."""

import pytest
from starlette.requests import Request

from services.api.streams import wants_stream


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/event-stream", True),
        ("application/json, Text/Event-Stream;q=0.5", True),
        ("text/event-stream;q=0.001", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream ; Q=0.000, application/json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_a_stream_is_for_whoever_accepts_one(accept: str, wanted: bool) -> None:
    request = Request({"type": "http", "headers": [(b"accept", accept.encode())]})
    assert wants_stream(request) is wanted
