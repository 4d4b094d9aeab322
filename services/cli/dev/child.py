"""One supervised process: started again when it ends, with growing pauses."""

import http.client
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

PAUSE_MINIMUM_S = 0.5
PAUSE_MAXIMUM_S = 10.0
STEADY_S = 30.0
"""A process that ran this long has earned a quick restart again."""
PROBE_TIMEOUT_S = 2.0
TAIL_LINES = 15
ANSWER_BYTES_MAX = 4096
SHOWN_MAX = 300


class Child:
    """The process of one Part."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        log: Path,
        port: int,
        health_port: int,
    ) -> None:
        self.name = name
        self.log = log
        self.address = f"http://127.0.0.1:{port}"
        self._port = health_port
        self._command = command
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.ends = 0
        """How often it has ended without being asked to."""
        self._started_at = 0.0
        self._pause_s = PAUSE_MINIMUM_S
        self._due_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the running process."""
        return self._process.pid if self.is_running() and self._process else None

    def is_running(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it now."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C on the terminal is the supervisor's to handle, in order
            )
        self._started_at = time.monotonic()
        self._due_at = None

    def tend(self) -> str | None:
        """Start it again when it ended and its pause is over; returns a line for the person who watches."""
        now = time.monotonic()
        if self.is_running() or self._process is None:
            return None
        if self._due_at is None:
            self.ends += 1
            if now - self._started_at > STEADY_S:
                self._pause_s = PAUSE_MINIMUM_S
            self._due_at = now + self._pause_s
            self._pause_s = min(self._pause_s * 2, PAUSE_MAXIMUM_S)
            code = self._process.returncode
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return f"{self.name} {how}; starts again in {self._due_at - now:.1f} s (log: {self.log})"
        if now < self._due_at:
            return None
        self.start()
        return f"{self.name} started again as process {self.pid}"

    def readiness(self) -> str | None:
        """None when it says that it is ready, else why not. A stranger on its port does not speak for it."""
        if self._process is None or not self.is_running():
            return "it is not running"
        problem = readiness(self._port)
        if problem is None and not _listens(self._process.pid, self._port):
            return f"another process answers on port {self._port}"
        return problem

    def ask_to_stop(self) -> None:
        """SIGTERM: it drains and ends."""
        if self._process is not None and self.is_running():
            self._process.terminate()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; kills it after `timeout_s` and then returns False."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True

    def tail(self) -> str:
        """The last lines of its log."""
        return tail(self.log)


def _listens(pid: int, port: int) -> bool:
    try:
        sockets = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return False
    return any(socket.status == psutil.CONN_LISTEN and socket.laddr.port == port for socket in sockets)


def readiness(port: int) -> str | None:
    """None when /readyz on this port of the loopback address says ready, else what it says."""
    status, body = _asked(port)
    return None if status == http.client.OK else body


def degraded(port: int) -> list[str]:
    """What a process that is ready says is away all the same."""
    status, body = _asked(port)
    return [str(reason) for reason in json.loads(body)["degraded"]] if status == http.client.OK else []


def _asked(port: int) -> tuple[int, str]:
    """Status (0: none) and text of /readyz.

    The standard library's client: asked several times a second while everything starts, a richer one would
    cost more than what it waits for.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(ANSWER_BYTES_MAX).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__} at http://127.0.0.1:{port}/readyz"
    finally:
        connection.close()
    return answer.status, body if answer.status == http.client.OK else f"{answer.status} {body[:SHOWN_MAX]}"


def tail(log: Path) -> str:
    """The last lines of a log file."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
    except FileNotFoundError:
        return ""
