"""What one client may take of the process, over real connections: the others are served all the same."""

import asyncio
import json
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from services.api import connection
from services.api.door import Door
from services.api.limits import Places
from services.runtime.settings import Api as Limits
from tests.serving import Api, serving
from tests.stack import Stack
from tests.waiting import until, until_async

pytestmark = pytest.mark.postgres

CONTENT = random.Random(1).randbytes(20_000_000)
"""More than the kernel takes for a client that does not read."""
Serve = Callable[..., Api]


@pytest.fixture
def serve(stack: Stack, tmp_path: Path) -> Iterator[Serve]:
    """Serve with a door of the test's own."""
    with ExitStack() as open_:

        def start(connections_max: int = 100, **limits: object) -> Api:
            door = Door(Limits.model_validate(limits), connections_max)
            return open_.enter_context(serving(stack.fresh_database(), tmp_path, door=door))

        yield start


@contextmanager
def connected(api: Api, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A connection from one of this machine's many addresses."""
    port = int(api.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 10, (address, 0)) as client:
        yield client


def ask(client: socket.socket, target: str, *headers: str, times: int = 1) -> None:
    client.sendall("\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode() * times)


def status(client: socket.socket) -> int:
    """Of the answer that comes next; 0 when the connection was cut."""
    return int((client.recv(65_536).split() or [b"", b"0"])[1])


def is_cut(client: socket.socket) -> bool:
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionError:
        pass
    return True


def downloads(api: Api) -> int:
    """How many are under way."""
    places: Places = api.parts.door._downloads
    return places.taken


@contextmanager
def file(api: Api) -> Iterator[str]:
    """The path and query of a large file's link."""
    with api.client() as client:
        (published,) = api.publish_file(client, "large.csv", CONTENT)["files"]
    yield httpx.URL(published["url"]).raw_path.decode()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not read is cut soon."""
    monkeypatch.setattr(connection, "WRITE_WITHIN_S", 0.3)
    monkeypatch.setattr(connection, "SWEEP_S", 0.1)


# ---------------------------------------------------------------- downloads


@pytest.mark.usefixtures("impatient")
def test_a_download_that_nobody_reads_is_cut_and_its_place_is_free(serve: Serve) -> None:
    api = serve()
    with file(api) as target, connected(api) as client:
        ask(client, target)
        until(lambda: downloads(api) == 1, 10, "the download to begin")
        until(lambda: downloads(api) == 0, 10, "the download to be cut")
        assert is_cut(client)


def test_an_aborted_download_lets_go_at_once(serve: Serve) -> None:
    api = serve()
    with file(api) as target:
        for how in (struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)):  # reset, and closed
            with connected(api) as client:
                ask(client, target)
                assert status(client) == 200
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
            until(lambda: downloads(api) == 0, 10, "the download to end")
            until(lambda: not api.parts.door.open, 10, "the connection to be forgotten")


def test_downloads_are_bounded_for_an_address_and_for_all(serve: Serve) -> None:
    api = serve(downloads=4)
    with file(api) as target, ExitStack() as held:
        for number in range(1, 5):
            client = held.enter_context(connected(api, f"127.0.0.{number}"))
            ask(client, target)
            assert status(client) == 200
            if number == 1:
                with connected(api) as second:
                    ask(second, target)
                    assert status(second) == 429
        with connected(api, "127.0.0.5") as fifth:
            ask(fifth, target)
            answer = fifth.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in answer.lower()
        with api.client() as other:
            assert other.get("/v1/me").status_code == 200


def test_a_slow_reader_gets_the_whole_file(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_WITHIN_S", 1.0)
    monkeypatch.setattr(connection, "SWEEP_S", 0.05)
    api = serve()
    with file(api) as target, connected(api) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        ask(client, target, "Connection: close")
        got = 0
        while piece := client.recv(65_536):
            got += len(piece)
        assert got > len(CONTENT)


# ---------------------------------------------------------------- connections


def test_idle_connections_of_one_address_leave_the_others_theirs(serve: Serve) -> None:
    api = serve(connections=2)
    with ExitStack() as held:
        idle = [held.enter_context(connected(api)) for _ in range(10)]
        until(lambda: len(api.parts.door.open) == 10, 10, "ten connections")
        with connected(api) as eleventh:
            assert eleventh.recv(65_536).startswith(b"HTTP/1.1 429 ")
        with connected(api, "127.0.0.2") as other:
            ask(other, "/v1/me")
            assert status(other) == 401
        idle[0].close()
        until(lambda: len(api.parts.door.open) < 10, 10, "one to be free")
        with connected(api) as again:
            ask(again, "/v1/me")
            assert status(again) == 401


def test_idle_connections_of_many_addresses_make_room_for_who_asks(serve: Serve) -> None:
    api = serve(connections_max=20)
    with ExitStack() as held:
        idle = [held.enter_context(connected(api, f"127.0.1.{n}")) for n in range(1, 61)]
        with connected(api) as client:
            ask(client, "/v1/me")
            assert status(client) == 401
        assert is_cut(idle[0])
        assert len(api.parts.door.open) <= 20


@pytest.mark.usefixtures("impatient")
def test_an_unread_pipeline_is_cut(serve: Serve) -> None:
    api = serve(requests_per_s=0)
    with connected(api) as client:
        client.setblocking(False)
        with pytest.raises((BlockingIOError, ConnectionError)):
            ask(client, "/v1/openapi.json", f"Authorization: Bearer {api.key()}", times=50_000)
        client.settimeout(10)
        until(lambda: not api.parts.door.open, 20, "the connection to be cut")


# ---------------------------------------------------------------- requests


def test_too_many_requests_of_a_key_are_refused_and_another_key_is_served(serve: Serve) -> None:
    api = serve(requests_per_s=2)
    with api.client() as client, api.client() as other:
        answers = [client.get("/v1/me") for _ in range(5)]
        assert other.get("/v1/me").status_code == 200
    assert [answer.status_code for answer in answers[:4]] == [200] * 4
    assert answers[4].status_code == 429
    assert answers[4].headers["retry-after"] == "1"
    assert answers[4].json()["type"] == "urn:millstream:problem:too-many-requests"


def test_plain_submits_are_counted_as_well(serve: Serve) -> None:
    api = serve(requests_per_s=2)
    with api.client() as client:
        found = [client.post("/v1/executions", json={"jobType": "noop"}).status_code for _ in range(5)]
    assert found == [202, 202, 202, 202, 429]


def test_too_many_requests_of_an_address_end_the_connection(serve: Serve) -> None:
    api = serve(requests_per_s=1)
    with connected(api) as client:
        ask(client, "/v1/me", times=30)
        answers = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answers.count(b"HTTP/1.1 401 ") == 10
    assert answers.count(b"HTTP/1.1 429 ") == 1
    with connected(api, "127.0.0.2") as other:
        ask(other, "/v1/me")
        assert status(other) == 401


def test_unknown_keys_are_guessed_at_a_bounded_rate(serve: Serve) -> None:
    api = serve()
    with api.client("") as client:
        found = [
            client.get("/v1/me", headers={"Authorization": f"Bearer ms_{n:012x}_{'x' * 43}"}).status_code
            for n in range(200)
        ]
    assert set(found) == {401, 429}


def test_waits_of_a_key_are_bounded_and_submit_nothing_beyond(serve: Serve) -> None:
    api = serve(waits=1)

    async def _watches() -> bool:
        return bool(api.parts.live._watches)

    async def both() -> list[int]:
        headers = {"Authorization": f"Bearer {api.key()}", "Prefer": "wait=30"}
        async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=30) as client:
            first = asyncio.create_task(client.post("/v1/executions", json={"jobType": "noop"}))
            await until_async(_watches, 10, "the first one to wait")
            second = await client.post("/v1/executions", json={"jobType": "noop"})
            api.parts.live.close()
            return [(await first).status_code, second.status_code]

    assert asyncio.run(both()) == [202, 429]
    assert api.count("job_request") == 1


# ---------------------------------------------------------------- headers


def test_a_key_in_a_trailer_is_none(serve: Serve) -> None:
    api = serve()
    trailer = f"0\r\nAuthorization: Bearer {api.key()}\r\n\r\n"
    start = "POST /v1/executions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(api) as client:
        client.sendall((start + '12\r\n{"jobType":"noop"}\r\n' + trailer).encode())
        assert status(client) == 401


@pytest.mark.parametrize("headers", [["X-Large: " + "x" * 100_000], [f"X-{n}: 1" for n in range(200)]])
def test_too_many_headers_in_one_read_are_refused(serve: Serve, headers: list[str]) -> None:
    with connected(serve()) as client:
        ask(client, "/v1/me", *headers)
        assert status(client) == 431


def test_a_body_that_is_too_large_by_its_own_word_is_refused_at_once(serve: Serve) -> None:
    api = serve()
    with api.client() as known:
        assert known.get("/v1/me").status_code == 200
        key = known.headers["Authorization"]
    head = ["POST /v1/executions HTTP/1.1", "Host: x", f"Authorization: {key}", "Content-Length: 10737418240"]
    with connected(api) as client:
        client.settimeout(5)  # a body is waited for twice as long
        client.sendall("\r\n".join([*head, "", ""]).encode())
        assert status(client) == 413


@pytest.mark.parametrize(("trusted", "kept"), [("", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.9")])
def test_only_a_trusted_proxy_names_the_client_that_is_kept(serve: Serve, trusted: str, kept: str) -> None:
    api = serve(trusted_proxies=trusted)
    with file(api) as target, api.client("") as client:
        client.head(target, headers={"X-Forwarded-For": "203.0.113.9"})
    assert api.rows("SELECT client FROM api.file_access") == [(kept,)]


# ---------------------------------------------------------------- clients that hang up


def test_a_client_that_hangs_up_leaves_no_traceback(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    api = serve()
    key = f"Authorization: Bearer {api.key()}"
    body = json.dumps({"jobType": "noop"}).encode()
    head = ["POST /v1/executions HTTP/1.1", "Host: x", key, f"Content-Length: {len(body)}"]
    cases = {
        "in the body": "\r\n".join([*head, "", ""]).encode() + body[:5],
        "while it waits": "\r\n".join([*head, "Prefer: wait=30", "", ""]).encode() + body,
    }
    with file(api) as target:
        stream = f"/v1/executions/{target.split('/')[2]}/steps/noop/log"
        accept = "Accept: text/event-stream"
        cases["in a stream"] = f"GET {stream} HTTP/1.1\r\nHost: x\r\n{key}\r\n{accept}\r\n\r\n".encode()
        cases["in a download"] = f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        for text in cases.values():
            for how in (struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)):
                with connected(api) as client:
                    client.sendall(text)
                    until(lambda: len(api.parts.door.open) == 1, 10, "the request to come")
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
                until(lambda: not api.parts.door.open, 10, "the connection to be forgotten")
    api.parts.live.close()
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
