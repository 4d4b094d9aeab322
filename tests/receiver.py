"""A webhook receiver that behaves as a test tells it to: raw sockets, so that it can also misbehave."""

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from tests.waiting import joined

Answer = Callable[["Call", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Call:
    """One request as it came; header names in lower case, `at` is monotonic."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass
class Receiver:
    """`script` holds the answers of a target, or of its path, in turn, the last one for ever."""

    port: int = 0
    otherwise: Answer = field(default_factory=lambda: status(204))
    script: dict[str, list[Answer]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def answers(self, *answers: Answer, target: str = "/hook") -> str:
        """Script the target's answers; its address."""
        self.script[target] = [*answers]
        return self.url(target)

    def url(self, target: str = "/hook") -> str:
        """An address of this receiver."""
        return f"http://127.0.0.1:{self.port}{target}"

    def at(self, target: str) -> list[Call]:
        """The calls of one target."""
        return [call for call in self.calls if call.target == target]


def status(code: int, headers: str = "", body: bytes = b"") -> Answer:
    """Answer with this status; `headers` are whole lines."""

    async def answer(_call: Call, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {code} Scripted\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode() + body)

    return answer


async def echo(call: Call, writer: asyncio.StreamWriter) -> None:
    """Repeat every header in the body, as careless receivers do."""
    body = repr(dict(call.headers)).encode()
    await status(500, body=body)(call, writer)


async def hang(_call: Call, _writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def reset(_call: Call, writer: asyncio.StreamWriter) -> None:
    """Break the connection with RST."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


async def flood(_call: Call, writer: asyncio.StreamWriter) -> None:
    """Answer 200 with a body that does not end."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def drip(_call: Call, writer: asyncio.StreamWriter) -> None:
    """Answer 200 with a body of which only the beginning comes."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nslow")
    await writer.drain()
    await asyncio.Event().wait()


async def endless_chunks(_call: Call, writer: asyncio.StreamWriter) -> None:
    """Answer 200 in chunks that do not end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        await writer.drain()


async def short(_call: Call, writer: asyncio.StreamWriter) -> None:
    """Promise 1000 bytes and hang up after 5."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort")
    await writer.drain()
    writer.close()


async def long(_call: Call, writer: asyncio.StreamWriter) -> None:
    """Promise 4 bytes and send more, which looks like another answer."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlongHTTP/1.1 200 OK\r\n\r\nsmuggled")


async def header_flood(_call: Call, writer: asyncio.StreamWriter) -> None:
    """Answer with headers that do not end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Flood: 1\r\n" * 1000)
        await writer.drain()


async def early_hints(_call: Call, writer: asyncio.StreamWriter) -> None:
    """Answer 103 for ever."""
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
        await writer.drain()


def encoded(encoding: str, body: bytes, headers: str = "") -> Answer:
    """Answer 200 with a body that says that it is encoded so."""
    return status(200, f"Content-Encoding: {encoding}\r\n{headers}", body)


BOMB = status(200, "Content-Encoding: gzip\r\n", gzip.compress(b"\0" * 50_000_000))
"""Answer 200 with 50 MB in 50 kB."""


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of the loopback interface."""
    receiver = Receiver()
    open_calls: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_calls.add(task)
        try:
            while True:
                await _serve_one(receiver, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            open_calls.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in open_calls:
            task.cancel()
        await asyncio.gather(*open_calls, return_exceptions=True)


@contextmanager
def receiving_aside() -> Iterator[Receiver]:
    """The same, in a thread of its own, for tests that are no coroutines."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="receiver", daemon=True)
    thread.start()
    made = receiving()
    try:
        yield asyncio.run_coroutine_threadsafe(made.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(made.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        joined(thread)
        loop.close()


async def _serve_one(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    call = Call(method, target, headers, body, time.monotonic())
    receiver.calls.append(call)
    answers = receiver.script.get(target) or receiver.script.get(target.partition("?")[0], [])
    answer = (answers.pop(0) if len(answers) > 1 else answers[0]) if answers else receiver.otherwise
    await answer(call, writer)
    await writer.drain()
