"""Server-sent events as the HTML standard defines them (9.2.6), as far as our API uses them; pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One event of a stream. `id` is the last one that the stream named."""

    id: str
    event: str
    data: str


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
