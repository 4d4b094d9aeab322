"""A reverse proxy that changes what passes through it: the man in the middle of the demo."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from tests.waiting import joined

NOT_FORWARDED = {"connection", "content-length", "date", "host", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Tampering:
    """What the proxy does to a request's target and body, and to an answer's body."""

    target: Callable[[str], str] = str
    sent: Callable[[bytes], bytes] = bytes
    answered: Callable[[str, bytes], bytes] = lambda target, body: body


class Proxy(ThreadingHTTPServer):
    """Forwards everything to `upstream`, as `tampering` changes it; `changed` counts what it changed."""

    daemon_threads = True

    def __init__(self, upstream: str, tampering: Tampering) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.tampering = tampering
        self.changed = 0
        self.client = httpx.Client(trust_env=False, timeout=30)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def _forward(self) -> None:
        proxy, how = self.server, self.server.tampering
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target, sent = how.target(self.path), how.sent(body)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_FORWARDED}
        answer = proxy.client.request(self.command, proxy.upstream + target, content=sent, headers=headers)
        answered = how.answered(self.path, answer.content)
        proxy.changed += (target, sent, answered) != (self.path, body, answer.content)
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() not in NOT_FORWARDED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answered)))
        self.end_headers()
        self.wfile.write(answered)

    do_GET = do_POST = _forward  # noqa: N815 - the names that BaseHTTPRequestHandler calls

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def between(upstream: str, tampering: Tampering) -> Iterator[Proxy]:
    """A proxy until the block ends."""
    with Proxy(upstream, tampering) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            joined(thread)
            proxy.client.close()


def flipped(content: bytes, at: int) -> bytes:
    """One bit of one byte changed."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)
