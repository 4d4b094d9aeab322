"""A webhook receiver of our own: verifies and writes down every call, and refuses a few at first."""

import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import msgspec
from standardwebhooks import Webhook, WebhookVerificationError

from tests.waiting import joined

REFUSED_OF = 256
REFUSED = 5
"""So many of REFUSED_OF deliveries hear 500 the first time."""


@dataclass(frozen=True, slots=True)
class Call:
    """One verified request."""

    path: str
    webhook_id: str
    event_id: str
    type: str
    body: bytes
    canary: str | None


class Receiver(ThreadingHTTPServer):
    """Use as a context manager; `calls` grows, `faults` must stay empty."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, secret: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.webhook = Webhook(secret)
        self.calls: list[Call] = []
        self.faults: list[str] = []
        self.refused: Counter[str] = Counter()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="receiver", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def pairs(self) -> set[tuple[str, str]]:
        """The (path, event id) received so far."""
        return {(call.path, call.event_id) for call in [*self.calls]}

    def duplicates(self) -> int:
        """Calls beyond the first of each webhook-id."""
        return len(self.calls) - len({call.webhook_id for call in self.calls})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        joined(self._thread)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = 20.0

    def do_POST(self) -> None:
        """Verify, record, answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        id = self.headers.get("webhook-id", "")
        if int(id[:2] or "0", 16) % REFUSED_OF < REFUSED and not self.server.refused[id]:
            self.server.refused[id] += 1
            self._answer(500)
            return
        try:
            self.server.webhook.verify(body, dict(self.headers.items()))
            event = msgspec.json.decode(body)
            call = Call(self.path, id, event["id"], event["type"], body, self.headers.get("x-canary"))
            self.server.calls.append(call)
        except (WebhookVerificationError, msgspec.DecodeError, KeyError) as error:
            self.server.faults.append(f"{self.path} {id}: {type(error).__name__}: {error}")
        self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Calls are counted, not printed."""
