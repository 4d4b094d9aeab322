"""A real Apache Kafka broker, one node, on loopback, its data in a folder."""

import base64
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from services.cli.dev import orphans
from services.cli.dev.folder import DevError, until
from services.cli.dev.jars import DEPLOY
from services.runtime import entropy
from services.runtime.kafka import connection
from services.runtime.settings import Kafka

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
PROBE_TIMEOUT_S = 1.0
JVM = (
    "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
)  # fmt: skip


class Broker:
    """Start, stop and kill; the same folder and ports find the same data again."""

    def __init__(self, folder: Path, jars: Path, log: Path, port: int, controller_port: int) -> None:
        self.folder = folder.resolve()  # the same in whatever way it is named
        self.bootstrap = f"127.0.0.1:{port}"
        self.pid: int | None = None
        self._jars = jars
        self._log = log
        self._port = port
        self._controller_port = controller_port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Format when new, start, and wait until the broker answers; an unclean shutdown is waited for.

        A broker that a killed run left on this folder is ended first. Raises DevError.
        """
        orphans.end(orphans.brokers(self.folder))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_settings()
        self._format_once()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java(), "kafka.Kafka", str(self._settings)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C on the terminal is the supervisor's to handle, in order
            )
        self.pid = self._process.pid
        until(self._answers, START_TIMEOUT_S, f"Kafka to answer on {self.bootstrap} (log: {self._log})")

    def stop(self) -> None:
        """Shut down cleanly; kills after STOP_TIMEOUT_S."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as a test of everybody else."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def leave(self) -> None:
        """Let the broker run on after this process; `orphans.brokers` finds it."""
        if self._process is not None:
            self._process.returncode = 0  # else its finaliser warns of a process that nobody waits for
            self._process = None

    def is_running(self) -> bool:
        """Whether the process that `start` started lives."""
        return self._process is not None and self._process.poll() is None

    def process(self) -> psutil.Process:
        """The running broker, to suspend and resume it in tests. Raises DevError when there is none."""
        if self._process is None:
            raise DevError(f"expected a running broker on {self.folder}, found none")
        return psutil.Process(self._process.pid)

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    def _java(self) -> list[str]:
        return ["java", *JVM, f"-Dkafka.logs.dir={self.folder}", "-cp", f"{self._jars}/*"]

    def _write_settings(self) -> None:
        own = [
            f"controller.quorum.voters=1@127.0.0.1:{self._controller_port}",
            f"listeners=PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller_port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{self._port}",
            f"log.dirs={self.folder / 'data'}",
        ]
        fixed = (DEPLOY / "server.properties").read_text(encoding="utf-8")
        self._settings.write_text(f"{fixed}\n# this machine\n" + "\n".join(own) + "\n", encoding="utf-8")

    def _format_once(self) -> None:
        """A format that was interrupted left no mark beside the data: it is done again from nothing."""
        mark = self.folder / "formatted"
        if mark.exists():
            return
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        cluster_id = base64.urlsafe_b64encode(b"m" + entropy.token(15)).decode().rstrip("=")
        command = self._format_command(cluster_id)
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_TIMEOUT_S)
        if result.returncode != 0:
            raise DevError(f"Kafka: expected to format {self.folder}, found:\n{result.stdout}{result.stderr}")
        mark.write_text(cluster_id, encoding="utf-8")

    def _format_command(self, cluster_id: str) -> list[str]:
        return [
            *self._java(), "kafka.tools.StorageTool", "format", "-t", cluster_id,
            "-c", str(self._settings), "--feature", "share.version=1",
        ]  # fmt: skip

    def _answers(self) -> bool:
        if not self.is_running():
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise DevError(f"Kafka: expected to start, found that it ended; end of {self._log}:\n{tail}")
        return answers(Kafka(bootstrap_servers=self.bootstrap))


def answers(settings: Kafka) -> bool:
    """Whether a broker serves metadata: an open port alone says nothing."""
    with AdminClient({**connection(settings), "log_level": 0}) as admin:  # type: ignore[dict-item]  # see kafka.Admin
        try:
            described = admin.describe_cluster(request_timeout=PROBE_TIMEOUT_S).result()
        except KafkaException:
            return False
        return bool(described.nodes)
