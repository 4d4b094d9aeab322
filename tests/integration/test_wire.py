"""Submits that the connection answers itself are answered as the application would, one after the other."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving import Api, serving
from tests.stack import Stack

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
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def answers(connection: socket.socket, count: int) -> list[tuple[int, dict[str, str], bytes]]:
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
        piece = connection.recv(65_536)
        assert piece, held
        held += piece
    assert not held
    return found


def test_a_submit_is_answered_alike_whether_it_comes_whole_or_in_pieces(api: Api) -> None:
    seen = []
    for key in ("first", "whole", "head-first", "byte-wise"):
        start = head(api, f"Idempotency-Key: {key}")
        with connected(api) as connection:
            match key:
                case "head-first":
                    connection.sendall(start)
                    connection.sendall(NOOP)
                case "byte-wise":
                    for byte in start + NOOP:
                        connection.sendall(bytes([byte]))
                case _:
                    connection.sendall(start + NOOP)
            ((status, headers, body),) = answers(connection, 1)
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
    with connected(api) as connection:
        connection.sendall(submits[0])
        answers(connection, 1)
        connection.sendall(submits[1] + look + submits[2] + submits[1])
        found = answers(connection, 4)
    assert [status for status, _, _ in found] == [202, 200, 202, 202]
    assert found[0][2] == found[3][2] != found[2][2]
    assert api.count("job_request") == 3


def test_a_key_used_for_another_body_is_a_conflict_and_the_connection_goes_on(api: Api) -> None:
    other = b'{"jobType":"noop","tag":"wire","name":"other"}'
    with connected(api) as connection:
        connection.sendall(head(api, "Idempotency-Key: one") + NOOP)
        answers(connection, 1)
        connection.sendall(head(api, "Idempotency-Key: one", body=other) + other)
        connection.sendall(head(api, "Idempotency-Key: two") + NOOP)
        found = answers(connection, 2)
    assert [status for status, _, _ in found] == [409, 202]
    assert found[0][1]["content-type"] == "application/problem+json"


@pytest.mark.parametrize("more", ["Connection: close", "Expect: 100-continue\r\nConnection: close"])
def test_who_asks_for_the_end_of_the_connection_gets_it(api: Api, more: str) -> None:
    with connected(api) as connection:
        connection.sendall(head(api, more) + NOOP)
        while piece := connection.recv(65_536):
            last = piece
    assert b"202 Accepted" in last or b"execution_id" in last


def test_a_submit_that_cannot_be_queued_is_refused_by_the_application(api: Api) -> None:
    with connected(api) as connection:
        connection.sendall(head(api, "Idempotency-Key: one") + NOOP)
        answers(connection, 1)
        api.parts.intake.close(5)
        connection.sendall(head(api, "Idempotency-Key: two") + NOOP)
        ((status, headers, _),) = answers(connection, 1)
    assert status == 503
    assert headers["retry-after"] == "1"


def test_nothing_is_taken_without_a_key_or_with_an_unknown_one(api: Api) -> None:
    start = head(api).replace(api.key().encode(), b"ms_x")
    with connected(api) as connection:
        connection.sendall(start.split(b"Authorization")[0] + b"Content-Length: 31\r\n\r\n" + NOOP)
        ((status, _, _),) = answers(connection, 1)
    assert status == 401
