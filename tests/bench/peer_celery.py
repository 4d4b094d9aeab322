"""Celery 5 on Redis: prefork 2, late acknowledgement, append-only file synced every second."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.cli.dev.folder import free_port
from tests.bench.system import STOP_TIMEOUT_S, spawn
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "bench" / "bin" / "python"
FLAGS = ("--pool=prefork", "--concurrency=2", "--without-gossip", "--without-mingle", "--without-heartbeat")
PEER = f"Celery and Redis (appendfsync everysec), acks_late, {' '.join(FLAGS)}"


class CeleryPeer:
    """A Redis server of its own; workers are started and stopped by the caller."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port(0, set())
        self._redis: subprocess.Popen[bytes] | None = None
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "BENCH_REDIS_URL": f"redis://127.0.0.1:{self._port}/0",
        }

    def start(self) -> None:
        """Start Redis and wait until it answers."""
        self._folder.mkdir(parents=True)
        with (self._folder / "redis.log").open("wb") as log:
            command = [
                "redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._folder),
                "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
            ]  # fmt: skip
            self._redis = spawn(command, {"PATH": os.environ["PATH"]}, log)
        until(self._answers, 10, "Redis to answer")

    def stop(self) -> None:
        """Stop Redis."""
        if self._redis is not None:
            _end(self._redis)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker that runs during the block."""
        command = [
            str(PYTHON),
            "-m",
            "celery",
            "-A",
            "tests.bench.celery_app",
            "worker",
            "-l",
            "WARNING",
            *FLAGS,
        ]
        with (self._folder / "worker.log").open("ab") as log:
            process = spawn(command, self._environment, log)
        try:
            yield
        finally:
            _end(process)

    def drain_s(self, count: int) -> float:
        """Seconds that a worker takes for `count` tasks that were queued before it started."""
        with self._client("drain", str(count)) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "queued\n"
            with self.worker():
                return float(json.loads(client.stdout.readline()))

    def latencies_s(self, count: int, rate: float) -> list[float]:
        """Seconds from call to result of each task, `rate` a second."""
        with self.worker(), self._client("latency", str(count), str(rate)) as client:
            assert client.stdout is not None
            return [float(value) for value in json.loads(client.stdout.readline())]

    @staticmethod
    def version() -> str:
        """Of Celery and Redis."""
        command = [str(PYTHON), "-c", "import celery; print(celery.__version__)"]
        celery = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        server = subprocess.run(
            ["redis-server", "--version"], check=True, capture_output=True, text=True
        ).stdout
        return f"celery {celery}, redis {server.split('v=')[1].split()[0]}"

    def _client(self, *words: str) -> subprocess.Popen[str]:
        command = [str(PYTHON), "-m", "tests.bench.celery_app", *words]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)

    def _answers(self) -> bool:
        command = ["redis-cli", "-p", str(self._port), "ping"]
        return subprocess.run(command, check=False, capture_output=True).stdout.strip() == b"PONG"


@contextmanager
def running(folder: Path) -> Iterator[CeleryPeer]:
    """A started Redis; it ends with the block."""
    peer = CeleryPeer(folder)
    try:
        peer.start()
        yield peer
    finally:
        peer.stop()


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
