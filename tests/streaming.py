"""Reading Server-Sent Events in tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Message:
    """One message, or a comment (then only `comment` is set)."""

    data: str = ""
    id: str | None = None
    event: str | None = None
    comment: str | None = None


def messages(answer: httpx.Response) -> Iterator[Message]:
    """The messages and comments of a stream, as they arrive."""
    fields: dict[str, list[str]] = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields.setdefault(name, []).append(value)
            continue
        if "data" in fields:
            yield Message("\n".join(fields["data"]), *(fields.get(key, [None])[0] for key in ("id", "event")))
        elif "" in fields:
            yield Message(comment=fields[""][0])
        fields = {}


@contextmanager
def stream(client: httpx.Client, path: str, last: str | int | None = None) -> Iterator[httpx.Response]:
    """Open a stream, from the beginning or behind the message `last`."""
    headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": str(last)})
    with client.stream("GET", path, headers=headers) as answer:
        yield answer
