"""`python -m services.api.checker`: reads and checks definitions for one api process, one after the other.

Checking the largest definition takes half a second of Python, which would hold everybody's requests in the
process that serves them. Both sides speak frames: four bytes of length, then MessagePack (checking.py). It
ends with its input, so with the process that started it, however that one ended.
"""

import signal
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any

import msgspec

from services import jobs
from services.api.core import service_requests
from services.contracts.commands import JobRequested
from services.contracts.events import PlannedStep
from services.jobs import documents, pipeline
from services.jobs.refused import Refused

LENGTH_BYTES = 4
Planned = tuple[JobRequested, tuple[PlannedStep, ...]]


def read_frame(stream: IO[bytes]) -> bytes | None:
    """The next frame; None at the end."""
    head = stream.read(LENGTH_BYTES)
    size = int.from_bytes(head)
    body = stream.read(size) if len(head) == LENGTH_BYTES else b""
    return body if len(head) == LENGTH_BYTES and len(body) == size else None


def write_frame(stream: IO[bytes], content: bytes) -> None:
    """Raises OSError when nobody reads it."""
    stream.write(len(content).to_bytes(LENGTH_BYTES) + content)
    stream.flush()


def read(text: bytes, is_json: bool) -> Any:
    """The value of a JSON or YAML text. Raises Malformed."""
    return (documents.parse_json if is_json else documents.parse_yaml)(text)


def _check(body: Any) -> None:
    pipeline.parsed(body)


def plan(record: JobRequested, values: Any, priority: int | None) -> Planned:
    """The request with what its pipeline adds, and its steps. Raises Refused."""
    record = service_requests.completed(record, values, priority)
    return record, jobs.plan(record)


def _plan(asked: Any, values: Any, priority: int | None) -> Planned:
    return plan(msgspec.convert(asked, JobRequested), values, priority)


WORK: Mapping[str, Callable[..., Any]] = {"read": read, "check": _check, "plan": _plan}


def answer(request: bytes) -> bytes:
    """What a request comes to: `done`, or the faults of the text or of the definition."""
    name, *arguments = msgspec.msgpack.decode(request)
    try:
        return msgspec.msgpack.encode(("done", WORK[name](*arguments), []))
    except documents.Malformed as malformed:
        return msgspec.msgpack.encode(("malformed", str(malformed), malformed.errors))
    except Refused as refused:
        return msgspec.msgpack.encode(("refused", None, refused.errors))


def main() -> int:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the api drains, and then closes the input
    while (request := read_frame(sys.stdin.buffer)) is not None:
        write_frame(sys.stdout.buffer, answer(request))
    return 0


if __name__ == "__main__":
    sys.exit(main())
