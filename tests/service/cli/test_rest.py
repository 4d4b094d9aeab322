"""The client of the public REST API against a server that ends its streams."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.cli import rest
from services.cli.failure import Failed
from services.cli.rest import Api
from services.cli.targets import Target


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `lives`, and then with nothing."""

    daemon_threads = True
    lives: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        self.wfile.write((self.server.lives.pop(0) if self.server.lives else "").encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join(10)


@pytest.fixture
def api(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(rest, "RECONNECT_S", 0.0)
    monkeypatch.setattr(rest, "RECONNECTS_MAX", 3)
    made = Api(Target(f"http://127.0.0.1:{server.server_port}", "key", None, {}))
    yield made
    made.close()


def test_a_stream_that_says_nothing_new_for_long_is_no_failure(server: Server, api: Api) -> None:
    """Its every life ends without a message: the execution waits for its time."""
    quiet = ["retry: 1000\n\n: waiting\n\n"] * 10
    server.lives = [*quiet, "id: 7\ndata: x\n\nevent: end\ndata: {}\n\n"]
    assert [message.data for message in api.stream("/events")] == ["x"]


def test_a_server_without_a_word_is_given_up(server: Server, api: Api) -> None:
    server.lives = [": waiting\n\n", *[""] * 10]
    with pytest.raises(Failed, match="the stream ended without a word"):
        list(api.stream("/events"))
    assert len(server.lives) == 10 - 3
