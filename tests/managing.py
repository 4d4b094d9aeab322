"""Manager processes for tests, and another service that asks them and follows the log."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from services.cli.dev.folder import free_port
from services.contracts import envelope, events
from services.contracts.commands import Command, ExecutionCommand
from services.contracts.events import Event
from services.runtime import entropy, kafka, migrations
from services.runtime.entropy import LocalClock
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from tests.stack import Stack
from tests.waiting import until
from tests.working import REJOIN_S, readiness


@dataclass
class Client:
    """Of the tenant `acme`."""

    stack: Stack
    history: dict[str, list[Event]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._publisher = Publisher(self.stack.kafka, "tests-client")
        self._consumer = Consumer(kafka.consumer_config(self.stack.kafka, "tests-client", "tests-client"))
        self._consumer.assign([TopicPartition("execution.events", n, OFFSET_BEGINNING) for n in range(12)])

    def close(self) -> None:
        self._consumer.close()
        assert self._publisher.close(10) == 0

    def say(self, said: Command) -> None:
        record = envelope.command(said, codec().encode(said))
        self._publisher.publish(record.topic, record.key, record.value, record.headers).result(30)

    def command(self, execution_id: str, kind: str, **more: Any) -> None:
        self.say(
            ExecutionCommand(
                command_id=entropy.fresh_id(),
                execution_id=execution_id,
                tenant="acme",
                kind=kind,
                requested_by="alice",
                requested_at=LocalClock().now(),
                **more,
            )
        )

    def names(self, execution_id: str) -> list[str]:
        """What has happened to an execution so far."""
        while (message := self._consumer.poll(0.05)) is not None:
            if message.error() is None:
                event: Any = codec().decode("execution.events", message.value())
                self.history.setdefault(event.execution_id, []).append(event)
        return [events.type_of(event) for event in self.history.get(execution_id, [])]

    def wait(self, execution_id: str, name: str, timeout_s: float = REJOIN_S) -> list[str]:
        until(lambda: name in self.names(execution_id), timeout_s, f"{name} of {execution_id}")
        return self.names(execution_id)


@dataclass
class Managers:
    """Starts manager processes over one database."""

    stack: Stack
    folder: Path
    database_url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        migrations.migrate(self.database_url, "executor")

    def started(self) -> subprocess.Popen[bytes]:
        """A manager that is ready."""
        port = free_port(0, set())
        environment = {
            "PATH": os.environ["PATH"],
            "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": self.stack.bootstrap,
            "MILLSTREAM_DATABASE_URL": self.database_url,
            "MILLSTREAM_BLOBS__URL": (self.folder / "blobs").resolve().as_uri(),
            "MILLSTREAM_HEALTH__PORT": str(port),
        }
        log_path = self.folder / "manager.log"
        with log_path.open("ab") as log:
            command = [sys.executable, "-m", "services.executor", "manager"]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        self.ports.append(port)
        until(readiness(process, port, log_path), REJOIN_S, "a ready manager")
        return process

    def owned(self) -> list[float]:
        """How many indexes each of them owns."""
        pages = [httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text for port in self.ports]
        lines = [line for page in pages for line in page.splitlines()]
        return [float(line.split()[1]) for line in lines if line.startswith("loop_indexes_owned ")]

    def end(self) -> None:
        """Stop them all."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(REJOIN_S)
