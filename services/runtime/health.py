"""/livez, /readyz and /metrics of every process, on a port and threads of their own.

Nobody who keeps the rest of the process busy can silence them.
"""

import faulthandler
import json
import os
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from services.runtime import telemetry
from services.runtime.settings import PREFIX, SettingsError

Check = Callable[[], tuple[bool, str]]
"""Returns (good, detail); quick, never blocks on the network; a raised exception counts as not good."""

Degraded = Callable[[], tuple[str, ...]]
"""What is away although the process does its work: one reason each."""

REQUEST_TIMEOUT_S = 5
STUCK_S = 60
"""A process that is not live for so long ends: not every supervisor asks (`millstream dev`, systemd)."""

log = telemetry.get_logger()


class HealthServer:
    """A small HTTP server in a daemon thread: 200 when a check is good, else 503, the detail as JSON."""

    def __init__(self, host: str, port: int, live: Check, ready: Check, degraded: Degraded = tuple) -> None:
        """Bind at once; `port` 0 takes a free one. Raises SettingsError when it cannot be had."""
        checks = {"/livez": live, "/readyz": ready}
        self._live = live
        self._closing = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, telemetry.METRICS_CONTENT_TYPE, telemetry.metrics_text())
                elif path in checks:
                    good, detail = _run(checks[path])
                    told = {"ok": good, "detail": detail, "degraded": degraded()}
                    self._answer(200 if good else 503, "application/json", json.dumps(told).encode())
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

        self._server = _bound(host, port, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port that is bound."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer, and to end the process when it is stuck."""
        self._thread.start()
        threading.Thread(target=self._end_when_stuck, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._closing.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(REQUEST_TIMEOUT_S)
        self._server.server_close()

    def _end_when_stuck(self) -> None:
        """Counted in looks, not by the clock: a process that stood still as a whole is given its time."""
        looks = 0
        while not self._closing.wait(1.0):
            good, detail = _run(self._live)
            looks = 0 if good else looks + 1
            if looks >= STUCK_S:
                log.error("stuck", detail=detail)
                faulthandler.dump_traceback()  # of all threads, to stderr: where it is stuck
                os._exit(1)  # an orderly end would wait for what is stuck


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _ServerV6(_Server):
    address_family = socket.AF_INET6


def _bound(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> _Server:
    try:
        return (_ServerV6 if ":" in host else _Server)((host, port), handler)
    except OSError as error:
        keys = f"{PREFIX}HEALTH__HOST, {PREFIX}HEALTH__PORT"
        found = f"{host}:{port} ({error.strerror})"
        raise SettingsError([f"{keys}: expected a free port, found {found}; set another port"]) from None


def _run(check: Check) -> tuple[bool, str]:
    try:
        return check()
    except Exception as error:
        return False, f"{type(error).__name__}: {error}"
