"""The event-stream parser on what servers and networks send."""

import pytest

from services.cli.sse import Message, lines, messages


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


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["a\nb\r\nc\rd\n\n"], ["a", "b", "c", "d", ""]),
        (["a\r", "\nb\r", "", "\n", "\n", "c"], ["a", "b", ""]),
        (["a", "b\r", "c\r", "\r"], ["ab", "c", ""]),
        (["a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg\n"], ["a\u2028b\u2029c\x85d\x0ce\x0bf\x1cg"]),
    ],
    ids=["every end", "CRLF in two pieces", "CR", "what ends no line"],
)
def test_lines(pieces: list[str], expected: list[str]) -> None:
    assert list(lines(pieces)) == expected
