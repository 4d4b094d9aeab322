"""How much of the api's memory clients keep that abort their downloads, or read nothing of them."""

import json
import multiprocessing
import random
import socket
import struct
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import psutil
import pytest

from services.runtime import allocator
from tests.serving import serving
from tests.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.faults, pytest.mark.postgres]

FILE_BYTES = 52 << 20
ABORTED = 1_000
IDLE = 300
MORE_BYTES_MAX = 64 << 20


def serve(database_url: str, folder: Path, pipe: Connection) -> None:
    """An api in a process of its own: tells its address and a link, serves until the pipe is closed."""
    allocator.share_arenas()
    allocator.return_large()
    with serving(database_url, folder) as api, api.client() as client:
        content = random.Random(1).randbytes(FILE_BYTES)
        (file,) = api.publish_file(client, "large.csv", content)["files"]
        del content
        pipe.send(json.dumps([api.url, file["url"]]))
        pipe.poll(None)


def begun(port: int, target: str, address: str) -> socket.socket:
    """A download of which nothing was read."""
    client = socket.create_connection(("127.0.0.1", port), 10, (address, 0))
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def test_aborted_and_unread_downloads_keep_nothing(stack: Stack, tmp_path: Path) -> None:
    pipe, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(stack.fresh_database(), tmp_path, theirs), daemon=True
    )
    process.start()
    try:
        assert pipe.poll(60)
        url, link = map(httpx.URL, json.loads(pipe.recv()))
        port, target = url.port or 0, link.raw_path.decode()
        memory = psutil.Process(process.pid)

        def used() -> int:
            return int(memory.memory_info().rss)

        most = 0

        def are_cut() -> bool:
            nonlocal most
            most = max(most, used())
            return len(memory.net_connections()) < 20

        idle = used()
        for number in range(ABORTED):
            with begun(port, target, "127.0.0.1") as client:
                assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
                if number % 2:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        aborted = used()
        with ExitStack() as held:
            # From four addresses, so that all downloads that there may be at once are under way.
            for number in range(IDLE):
                held.enter_context(begun(port, target, f"127.0.0.{number % 4 + 1}"))
            until(are_cut, 60, "the unread ones to be cut")
        cut = used()
        more = {"aborted": aborted - idle, "unread": most - idle, "cut": cut - idle}
        assert max(more.values()) <= MORE_BYTES_MAX, more
    finally:
        pipe.close()
        process.kill()
        process.join(10)
