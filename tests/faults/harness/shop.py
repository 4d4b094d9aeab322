"""What the pipelines of the fault run call: who called by which key is written down.

Answers depend on the number of the request alone, so that an execution that was disturbed ends as another.
"""

import json
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from services.runtime.entropy import LocalClock
from tests.waiting import joined

RELEASED_WITHIN_S = 120


def is_busy(number: int) -> bool:
    """Its first payment is answered by 503."""
    return number % 7 == 0


def is_stuck(number: int) -> bool:
    """Its payment gets no answer until the request has been cancelled."""
    return number % 25 == 11


def is_out(number: int) -> bool:
    """Its shipment is refused, which the pipeline handles."""
    return number % 5 == 0


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it began."""

    path: str
    number: int
    key: str
    at: datetime


class Shop(ThreadingHTTPServer):
    """Use as a context manager; `calls` grows."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[Call] = []
        self.clock = LocalClock()
        self._seen: Counter[str] = Counter()
        self._released: dict[int, threading.Event] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="shop", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def keys(self) -> set[str]:
        """Every idempotency key so far."""
        return {call.key for call in [*self.calls]}

    def stuck(self) -> set[int]:
        """The numbers whose payment hangs, or has hung."""
        return {call.number for call in [*self.calls] if call.path == "/pay" and is_stuck(call.number)}

    def release(self, number: int) -> None:
        """Let the calls of this number go."""
        self._gate(number).set()

    def taken(self, path: str, number: int, key: str) -> int:
        """Write a call down; how often its key came, this one included."""
        with self._lock:
            self.calls.append(Call(path, number, key, self.clock.now()))
            self._seen[key] += 1
            return self._seen[key]

    def wait(self, number: int) -> None:
        """Until the number is released."""
        self._gate(number).wait(RELEASED_WITHIN_S)

    def _gate(self, number: int) -> threading.Event:
        with self._lock:
            return self._released.setdefault(number, threading.Event())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers are killed: a broken connection is nothing to say."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for gate in [*self._released.values()]:
            gate.set()
        self.shutdown()
        joined(self._thread)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Shop
    timeout = 20.0

    def _serve(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = urlsplit(self.path)
        number = int(parse_qs(parts.query)["n"][0])
        times = self.server.taken(parts.path, number, self.headers.get("Idempotency-Key", ""))
        match parts.path:
            case "/pay" if is_stuck(number):
                self.server.wait(number)
                self._answer(200, {})
            case "/pay" if is_busy(number) and times == 1:
                self._answer(503, {})
            case "/ship" if is_out(number):
                self._answer(400, {})
            case _:
                self._answer(200, {"n": number, "twice": 2 * number})

    do_GET = do_POST = _serve  # noqa: N815 - the names that BaseHTTPRequestHandler calls

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Calls are counted, not printed."""
