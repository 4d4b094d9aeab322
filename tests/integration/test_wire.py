"""Submits that the connection answers itself are answered as the application would, one after the other."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.api import bodies, connection
from services.api.routes import commands
from tests.serving import Api, serving
from tests.stack import Stack
from tests.waiting import until

pytestmark = pytest.mark.postgres
NOOP = b'{"jobType":"noop","tag":"wire"}'


@pytest.fixture
def api(stack: Stack, tmp_path: Path) -> Iterator[Api]:
    with serving(stack.fresh_database(), tmp_path) as served:
        yield served


def head(api: Api, *more: str, body: bytes = NOOP, method: str = "POST /v1/executions") -> bytes:
    """A request up to its body."""
    lines = (
        f"{method} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {api.key()}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *more,
    )
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def connected(api: Api) -> Iterator[socket.socket]:
    port = int(api.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        yield client


def answers(client: socket.socket, count: int) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of the next answers."""
    held = b""
    found: list[tuple[int, dict[str, str], bytes]] = []
    while len(found) < count:
        text, end, rest = held.partition(b"\r\n\r\n")
        lines = text.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        size = int(headers.get("content-length", 0))
        if end and len(rest) >= size:
            found.append((int(lines[0].split()[1]), headers, rest[:size]))
            held = rest[size:]
            continue
        piece = client.recv(65_536)
        assert piece, held
        held += piece
    assert not held
    return found


def test_a_submit_is_answered_alike_whether_it_comes_whole_or_in_pieces(api: Api) -> None:
    seen = []
    for key in ("first", "whole", "head-first", "byte-wise"):
        start = head(api, f"Idempotency-Key: {key}")
        with connected(api) as client:
            match key:
                case "head-first":
                    client.sendall(start)
                    client.sendall(NOOP)
                case "byte-wise":
                    for byte in start + NOOP:
                        client.sendall(bytes([byte]))
                case _:
                    client.sendall(start + NOOP)
            ((status, headers, body),) = answers(client, 1)
        execution_id = json.loads(body)["execution_id"]
        assert api.rows("SELECT tag FROM api.job_request WHERE execution_id = %s", execution_id) == [
            ("wire",)
        ]
        mask = "0" * 40
        headers["date"] = ""
        text = body.decode().replace(execution_id, mask)
        seen.append((status, {k: v.replace(execution_id, mask) for k, v in headers.items()}, text))
    assert seen[0][0] == 202
    assert all(answer == seen[0] for answer in seen[1:])


def test_requests_sent_at_once_are_answered_in_their_order(api: Api) -> None:
    submits = [head(api, f"Idempotency-Key: pipelined-{n}") + NOOP for n in range(3)]
    look = head(api, body=b"", method="GET /v1/executions")
    with connected(api) as client:
        client.sendall(submits[0])
        answers(client, 1)
        client.sendall(submits[1] + look + submits[2] + submits[1])
        found = answers(client, 4)
    assert [status for status, _, _ in found] == [202, 200, 202, 202]
    assert found[0][2] == found[3][2] != found[2][2]
    assert api.count("job_request") == 3


def test_a_key_used_for_another_body_is_a_conflict_and_the_connection_goes_on(api: Api) -> None:
    other = b'{"jobType":"noop","tag":"wire","name":"other"}'
    with connected(api) as client:
        client.sendall(head(api, "Idempotency-Key: one") + NOOP)
        answers(client, 1)
        client.sendall(head(api, "Idempotency-Key: one", body=other) + other)
        client.sendall(head(api, "Idempotency-Key: two") + NOOP)
        found = answers(client, 2)
    assert [status for status, _, _ in found] == [409, 202]
    assert found[0][1]["content-type"] == "application/problem+json"


@pytest.mark.parametrize("more", ["Connection: close", "Expect: 100-continue\r\nConnection: close"])
def test_who_asks_for_the_end_of_the_connection_gets_it(api: Api, more: str) -> None:
    with connected(api) as client:
        client.sendall(head(api, more) + NOOP)
        while piece := client.recv(65_536):
            last = piece
    assert b"202 Accepted" in last or b"execution_id" in last


def test_a_submit_that_cannot_be_queued_is_refused_by_the_application(api: Api) -> None:
    with connected(api) as client:
        client.sendall(head(api, "Idempotency-Key: one") + NOOP)
        answers(client, 1)
        api.parts.intake.close(5)
        client.sendall(head(api, "Idempotency-Key: two") + NOOP)
        ((status, headers, _),) = answers(client, 1)
    assert status == 503
    assert headers["retry-after"] == "1"


def test_nothing_is_taken_without_a_key_or_with_an_unknown_one(api: Api) -> None:
    start = head(api).replace(api.key().encode(), b"ms_x")
    with connected(api) as client:
        client.sendall(start.split(b"Authorization")[0] + b"Content-Length: 31\r\n\r\n" + NOOP)
        ((status, _, _),) = answers(client, 1)
    assert status == 401


def dripped(client: socket.socket, text: bytes, size: int = 1) -> tuple[float, bytes]:
    """Seconds until the server gave up on a piece now and then, and what it said."""
    client.setblocking(False)
    started = time.monotonic()
    left = iter(range(0, len(text), size))
    said: list[bytes] = []

    def given_up() -> bool:
        try:
            at = next(left)
            client.send(text[at : at + size])
            while piece := client.recv(65_536):
                said.append(piece)
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        return True

    until(given_up, 30, "the server to give up")
    return time.monotonic() - started, b"".join(said)


ENDLESS = b"X-Slow: " + b"x" * 100_000


def test_headers_that_do_not_end_in_time_end_the_connection(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_WITHIN_S", 1.0)
    first = head(api, "Idempotency-Key: one") + NOOP
    unread = head(api, body=b"x" * 100_000, method="GET /v1/executions")
    cases = {
        "from the start": (b"", b"GET /v1/me HTTP/1.1\r\n" + ENDLESS, 0),
        "after a request": (first, b"GET /v1/me HTTP/1.1\r\n" + ENDLESS, 1),
        "no request at all": (first, b"\r\n" * 50_000, 1),
        "a body that nobody reads": (unread, b"x" * 90_000, 1),
    }
    for name, (before, slow, count) in cases.items():
        with connected(api) as client:
            client.sendall(before)
            answers(client, count)
            took_s, said = dripped(client, slow)
        assert said.startswith(b"HTTP/1.1 408 "), (name, said)
        assert 0.9 < took_s < 10, (name, took_s)


def test_headers_without_end_end_the_connection_before_they_fill_the_memory(api: Api) -> None:
    with connected(api) as client:
        client.sendall(head(api, ENDLESS[:60_000].decode()) + NOOP)
        assert answers(client, 1)[0][0] == 202
        took_s, said = dripped(client, b"GET /v1/me HTTP/1.1\r\n" + b"X-More: 1\r\n" * 100_000, 11_000)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert took_s < connection.HEAD_WITHIN_S


def test_a_large_body_that_nobody_reads_is_no_head(api: Api) -> None:
    body = b"x" * 1_000_000
    with connected(api) as client:
        client.sendall(head(api, body=body, method="GET /v1/executions"))
        assert answers(client, 1)[0][0] == 200
        client.sendall(body)
        client.sendall(head(api) + NOOP)
        assert answers(client, 1)[0][0] == 202


def test_late_headers_behind_a_request_wait_for_its_answer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_WITHIN_S", 0.1)
    monkeypatch.setattr(commands, "ANSWER_WITHIN_S", 0.5)  # no manager answers here
    with connected(api) as client:
        client.sendall(head(api) + NOOP)
        execution_id = json.loads(answers(client, 1)[0][2])["execution_id"]
        cancel = head(api, method=f"POST /v1/executions/{execution_id}/cancel", body=b"")
        client.sendall(cancel + b"GET /v1/me")
        (first, second) = answers(client, 2)
    assert (first[0], second[0]) == (202, 408)


def test_headers_in_pieces_are_in_time_and_the_body_is_waited_for_elsewhere(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_WITHIN_S", 1.0)
    monkeypatch.setattr(bodies, "WITHIN_S", 2.0)
    start = head(api)
    with connected(api) as client:
        for piece in (start[:10], start[10:], NOOP, start[:10], start[10:]):
            client.sendall(piece)
        found = answers(client, 2)  # the second body never comes
    assert [status for status, _, _ in found] == [202, 408]
    assert found[1][1]["content-type"] == "application/problem+json"


def test_a_connection_on_which_nothing_comes_is_closed(api: Api) -> None:
    with connected(api) as client:
        assert client.recv(1) == b""
