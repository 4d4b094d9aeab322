"""A stand-in for your own service: takes webhooks, writes down exactly what came, answers 204.

    python -m examples.receiver --record received.jsonl [--port 9000]

The first line on stdout is its address; then one line per request. The record has one JSON object a line:
method, path, headers, and the body in base64. Nothing is verified here: examples/demo/webhook.py shows how.
"""

import argparse
import base64
import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BODY_BYTES_MAX = 1024 * 1024


class Recorder(ThreadingHTTPServer):
    """Writes requests to a file, whole lines only."""

    daemon_threads = True

    def __init__(self, port: int, record: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self._record = record.open("a", encoding="utf-8")
        self._one_at_a_time = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def write_down(self, request: dict[str, object], line: str) -> None:
        """Record one request and tell of it."""
        with self._one_at_a_time:
            self._record.write(json.dumps(request) + "\n")
            self._record.flush()
            print(line, flush=True)

    def server_close(self) -> None:
        """Close the socket and the record."""
        super().server_close()
        self._record.close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Recorder
    timeout = 10.0

    def do_POST(self) -> None:
        """Record, then answer: a sender that hears 204 may forget the event."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            self.send_error(413 if length.isdigit() else 411)
            return
        body = self.rfile.read(int(length))
        request: dict[str, object] = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": base64.b64encode(body).decode(),
        }
        id = self.headers.get("webhook-id", "no webhook-id")
        self.server.write_down(request, f"{self.command} {self.path} {id} {len(body)} bytes")
        self.send_response(204)
        self.end_headers()

    def do_PUT(self) -> None:
        """A callback may ask for this method."""
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None:
        """The line of `write_down` is the only one."""


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.receiver", description=__doc__)
    parser.add_argument("--record", type=Path, required=True, help="the file to append requests to")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    options = parser.parse_args()
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # named: a shell's background jobs ignore SIGINT
        signal.signal(number, lambda *_: sys.exit(0))
    with Recorder(options.port, options.record) as server:
        print(server.url, flush=True)
        server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
