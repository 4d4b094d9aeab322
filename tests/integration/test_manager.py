"""Manager and worker as real processes: what somebody wants of an execution that runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from services.cli.dev.folder import free_port
from services.contracts import envelope, events, ids
from services.contracts.commands import Command, Definition, ExecutionCommand, JobRequested
from services.contracts.events import Event
from services.runtime import entropy, kafka, migrations
from services.runtime.entropy import LocalClock
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from tests.stack import OwnStack
from tests.waiting import until
from tests.working import REJOIN_S, Gate, Workers, readiness, slow_source

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

NOW = LocalClock().now()
DATASET = {"source": "main", "table": "public.slow", "columns": [{"name": "id", "type": "integer"}]}


@dataclass
class Client:
    """Another service: asks through the topics and follows the log."""

    stack: OwnStack
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

    def export(self, **changes: Any) -> str:
        """Ask for an export of the slow view; its execution id."""
        execution_id = entropy.fresh_id()
        definition = Definition(kind="dataset", id="slow", revision=1, body=DATASET)
        request = JobRequested(
            execution_id=execution_id,
            tenant="acme",
            requested_at=LocalClock().now(),
            created_by="alice",
            name="slow",
            job_type="export",
            definition=definition,
            parameters={"params": {}, "time_range": None},
            **changes,
        )
        self.say(request)
        return execution_id

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


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """Both processes use the fixed topic names."""
    return own


@pytest.fixture
def client(own: OwnStack, tmp_path: Path) -> Iterator[Client]:
    """With a manager that is ready."""
    database = own.fresh_database()
    migrations.migrate(database, "executor")
    port = free_port(0, set())
    environment = {
        "PATH": os.environ["PATH"],
        "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": own.bootstrap,
        "MILLSTREAM_DATABASE_URL": database,
        "MILLSTREAM_HEALTH__PORT": str(port),
    }
    log_path = tmp_path / "manager.log"
    with log_path.open("ab") as log:
        arguments = [sys.executable, "-m", "services.executor", "manager"]
        process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log)

    until(readiness(process, port, log_path), REJOIN_S, "a ready manager")
    client = Client(own)
    yield client
    client.close()
    process.terminate()
    process.wait(REJOIN_S)


@pytest.fixture
def gate(workers: Workers, gate: Gate) -> Gate:
    """The view that exports read waits until the gate is open."""
    slow_source(workers)
    return gate


def test_a_running_export_is_cancelled_and_run_again(client: Client, workers: Workers, gate: Gate) -> None:
    workers.started()
    execution = client.export()
    until(lambda: gate.waiting() == 1, REJOIN_S, "a running query")
    client.command(execution, "cancel", reason="wrong month")
    until(lambda: gate.waiting() == 0, 2, "the end of the query")
    assert client.wait(execution, "execution.cancelled")[-2:] == ["step.cancelled", "execution.cancelled"]
    gate.open()
    again = ids.rerun_id(execution, 1)
    client.command(execution, "rerun", rerun_id=again)
    assert "file.published" in client.wait(again, "execution.completed")
    assert client.names(execution)[-2:] == ["execution.cancelled", "execution.rerun"]
    taken = ids.rerun_id(again, 1)
    client.command(again, "rerun", rerun_id=taken, reuse_results=True)
    assert "step.running" not in client.wait(taken, "execution.completed")
    assert "file.published" in client.names(taken)


def test_what_is_cancelled_before_a_worker_comes_never_runs(
    client: Client, workers: Workers, gate: Gate
) -> None:
    first = client.export()
    client.wait(first, "execution.accepted")
    client.command(first, "cancel")
    client.wait(first, "execution.cancelled")
    later = client.export(run_at=LocalClock().now() + timedelta(seconds=3))
    assert client.wait(later, "execution.accepted") == ["execution.accepted"]
    workers.started()
    gate.open()
    client.wait(later, "execution.completed")
    assert client.names(first) == ["execution.accepted", "step.cancelled", "execution.cancelled"]
    accepted, started = client.history[later][:2]
    assert isinstance(accepted, events.ExecutionAccepted)
    assert accepted.request.run_at is not None
    assert started.occurred_at >= accepted.request.run_at
