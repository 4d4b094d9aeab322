"""`python -m services.api` as a process of a test."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from services.cli.dev.folder import free_port
from tests.stack import Stack
from tests.waiting import until

ROOT = Path(__file__).parents[1]


class Process:
    """One api process; its log is a file."""

    def __init__(self, stack: Stack, database_url: str, folder: Path) -> None:
        taken: set[int] = set()
        port, health_port = free_port(0, taken), free_port(0, taken)
        self.url = f"http://127.0.0.1:{port}"
        self.health_url = f"http://127.0.0.1:{health_port}"
        self.log = folder / "api.log"
        keys = f"k1:{base64.b64encode(bytes(32)).decode()}"
        own = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")}
        self.environment = {
            **own,
            "MILLSTREAM_API__PORT": str(port),
            "MILLSTREAM_HEALTH__PORT": str(health_port),
            "MILLSTREAM_BLOBS__URL": f"file://{folder / 'blobs'}",
            "MILLSTREAM_DATABASE_URL": database_url,
            "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap,
            "MILLSTREAM_FILES__KEYS": keys,
            "MILLSTREAM_LINKS__KEYS": keys,
            "MILLSTREAM_SOURCES__FLIGHTS__TENANTS": "acme",
            "MILLSTREAM_SEALING__KEYS": keys,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def start(self, **more: str) -> None:
        """Start and wait until it is ready; `more` adds to the environment."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.api"],
                cwd=ROOT,
                env={**self.environment, **more},
                stdout=log,
                stderr=log,
            )
        until(lambda: self.status("/readyz") == 200, 30, "api to be ready")

    def run(self, *arguments: str) -> str:
        """Run another command of the service: what it prints."""
        command = [sys.executable, "-m", "services.api", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    def status(self, path: str) -> int | None:
        """The status of a GET at the health port; None when nobody answers."""
        try:
            return self.client.get(f"{self.health_url}{path}").status_code
        except httpx.TransportError:
            return None

    def degraded(self) -> list[str]:
        """What is away although it takes requests."""
        reasons: list[str] = self.client.get(f"{self.health_url}/readyz").json()["degraded"]
        return reasons

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for its end."""
        assert self._process is not None
        return self._process.wait(30)

    def end(self) -> None:
        """Kill it, if it runs."""
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def submit(self, **more: Any) -> httpx.Response:
        """Ask for a noop."""
        return self.client.post("/v1/executions", json={"jobType": "noop", **more})
