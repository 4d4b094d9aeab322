"""The system under measurement: a durable stack of its own, and the ordinary processes of the services."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from services.cli.dev import parts
from services.cli.dev.child import readiness, tail
from services.cli.dev.folder import Folder, free_port
from services.runtime import migrations
from services.runtime.settings import PREFIX
from tests.stack import OwnStack
from tests.waiting import until

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
UNLIMITED = {f"{PREFIX}API__REQUESTS_PER_S": "0", f"{PREFIX}API__CONNECTIONS": "0"}
"""One key asks for as much as it can."""
BY_NAME = {part.name: part for part in parts.PARTS}


class Process:
    """One running process of a service."""

    def __init__(self, popen: subprocess.Popen[bytes], port: int, health_port: int, log: Path) -> None:
        self._popen, self.port, self._health_port, self._log = popen, port, health_port, log
        self.pid = popen.pid
        self.url = f"http://127.0.0.1:{port}"

    def cpu_s(self) -> float:
        """Processor seconds so far, of itself and its threads."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def peak_rss_mb(self) -> float:
        """The most memory that was resident at any time."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("this system does not tell VmHWM")

    def log(self) -> str:
        """The end of what it said."""
        return tail(self._log)

    def is_ready(self) -> bool:
        """Whether it says so; fails when it has ended."""
        assert self._popen.poll() is None, f"process ended:\n{self.log()}"
        return readiness(self._health_port) is None

    def kill(self) -> None:
        """SIGKILL."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """SIGTERM, and its end; a second call does nothing."""
        if self._popen.poll() is None:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_TIMEOUT_S)
            self._popen.kill()
            self._popen.wait()


class System:
    """Kafka and PostgreSQL (fsync on) with the schemas in place; services are started by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = OwnStack(folder, durable=True)
        self.database_url = ""
        self._processes: list[Process] = []
        self._data = Folder(folder / "dev")
        self._taken: set[int] = set()

    def start(self) -> None:
        """Start the servers and migrate every schema."""
        self._data.create()
        self.stack.start()
        self.database_url = self.stack.fresh_database()
        for schema in parts.SCHEMAS:
            migrations.migrate(self.database_url, schema)

    def stop(self) -> None:
        """Stop every process, then the servers."""
        for process in self._processes:
            process.stop()
        self.stack.stop()

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """What every process is given, as `millstream dev` would, and the caller's own settings."""
        settings = {f"{PREFIX}QUOTA__EXECUTIONS": "1000000000", **settings}  # a bench is no tenant
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        return parts.shared_environment(
            self._data, self.stack.bootstrap, {**inherited, **UNLIMITED, **settings}
        )

    def service(self, name: str, **settings: str) -> Process:
        """Start a service of `parts.PARTS` (`manager`, `worker`, ...) and wait until it is ready."""
        part = BY_NAME[name]
        ports = {name: free_port(0, self._taken) for name in part.ports}
        environment = self.environment(settings) | part.port_settings(ports)
        if part.schema is not None:
            environment[f"{PREFIX}DATABASE_URL"] = self.database_url
        path = self.folder / f"{name}-{len(self._processes)}.log"
        with path.open("wb") as log:
            popen = spawn(parts.command(part.words), environment, log)
        process = Process(popen, ports[name], ports[part.health], path)
        self._processes.append(process)
        until(process.is_ready, READY_TIMEOUT_S, f"{name} to be ready")
        return process


def spawn(command: list[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A child whose output goes to `log`."""
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@contextmanager
def running(folder: Path) -> Iterator[System]:
    """A started system; everything of it ends with the block."""
    system = System(folder)
    try:
        system.start()
        yield system
    finally:
        system.stop()
