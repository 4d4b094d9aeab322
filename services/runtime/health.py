"""/livez, /readyz and /metrics of a process that has no API of its own."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from services.runtime import telemetry

Check = Callable[[], tuple[bool, str]]
"""Returns (good, detail); quick, never blocks on the network; a raised exception counts as not good."""

REQUEST_TIMEOUT_S = 5


class HealthServer:
    """A small HTTP server in a daemon thread: 200 when a check is good, else 503, the detail as JSON."""

    def __init__(self, host: str, port: int, live: Check, ready: Check) -> None:
        """Bind at once (OSError when the port is taken); `port` 0 takes a free one."""
        checks = {"/livez": live, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, telemetry.METRICS_CONTENT_TYPE, telemetry.metrics_text())
                elif path in checks:
                    good, detail = _run(checks[path])
                    body = json.dumps({"ok": good, "detail": detail}).encode()
                    self._answer(200 if good else 503, "application/json", body)
                else:
                    self._answer(404, "text/plain", b"paths: /livez /readyz /metrics\n")

            def _answer(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes come every second; they are not worth a line."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(REQUEST_TIMEOUT_S)
        self._server.server_close()


def _run(check: Check) -> tuple[bool, str]:
    try:
        return check()
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"
