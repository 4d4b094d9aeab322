"""The event-stream parser on what servers and networks send."""

import pytest

from services.cli.sse import Message, messages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id: 1\nevent: a\ndata: x\n\n", [Message("1", "a", "x")]),
        (": heartbeat\n\nid:1\ndata:x\n\n", [Message("1", "message", "x")]),
        ("id: 1\ndata: x\n\ndata: y\n\n", [Message("1", "message", "x"), Message("1", "message", "y")]),
        ("data: x\ndata:  y\n\n", [Message("", "message", "x\n y")]),
        ("id: 1\ndata: x\n\nid: 2\ndata: cut o", [Message("1", "message", "x")]),
        ("retry: 5\nevent: a\n\n", []),
    ],
    ids=["whole", "comment", "id stays", "two lines", "cut off", "no data"],
)
def test_messages(text: str, expected: list[Message]) -> None:
    assert list(messages(text.split("\n"))) == expected
