"""Server-sent events as the HTML standard defines them (9.2.6), as far as our API uses them; pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_END_OF_LINE = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Message:
    """One event of a stream. `id` is the last one that the stream named."""

    id: str
    event: str
    data: str


def lines(texts: Iterable[str]) -> Iterator[str]:
    """The whole lines of a stream that comes in pieces.

    They end in CR, LF or CRLF and in nothing else: what str.splitlines takes for an end, such as U+2028,
    U+0085 and form feed, is text that a name or a log line may hold.
    """
    rest, after_cr = "", False
    for text in filter(None, texts):
        piece = text.removeprefix("\n") if after_cr else text
        after_cr = piece.endswith("\r")
        *whole, rest = _END_OF_LINE.split(rest + piece)
        yield from whole


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages in the lines of a stream; comments and what was cut off at the end are none."""
    id, event = "", "message"
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield Message(id, event, "\n".join(data))
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "id":
                id = value
            case "event":
                event = value
            case "data":
                data.append(value)
            case _:
                pass  # a comment, `retry`, or what a later standard adds
