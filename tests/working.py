"""Worker processes for tests, and the manager's side of the protocol played by the test."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from services.cli.dev.folder import free_port
from services.contracts import envelope
from services.contracts.codec import Record
from services.contracts.commands import StepControl, StepOutcome, StepReport, StepRequested
from services.runtime import blobs, entropy, kafka
from services.runtime.entropy import LocalClock
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from tests import exporting
from tests.stack import Stack, transaction
from tests.waiting import until

QUEUES = {"step.requested": "millstream-worker", "step.requested.long": "millstream-worker-long"}
REJOIN_S = 30
WORDS = ("progressed", "completed")


@dataclass
class Read:
    """A record of a topic as the manager or an operator reads it."""

    value: bytes
    headers: dict[str, bytes]
    key: bytes


@dataclass
class Manager:
    """Dispatches attempts and reads what workers say about them."""

    stack: Stack
    records: dict[str, list[Read]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._publisher = Publisher(self.stack.kafka, "tests-manager")
        config = kafka.consumer_config(self.stack.kafka, "tests-manager", "tests-manager")
        self._consumer = Consumer(config)
        self._consumer.assign(
            [
                *(
                    TopicPartition(f"step.{word}", index, OFFSET_BEGINNING)
                    for word in WORDS
                    for index in range(12)
                ),
                *(TopicPartition(f"{queue}.dlq", 0, OFFSET_BEGINNING) for queue in QUEUES),
            ]
        )

    def close(self) -> None:
        self._consumer.close()
        assert self._publisher.close(10) == 0

    def request(self, kind: str = "NOOP", parameters: Any = None) -> StepRequested:
        return StepRequested(
            attempt_id=entropy.fresh_id(),
            execution_id=entropy.fresh_id(),
            tenant="acme",
            step="step",
            kind=kind,
            attempt=1,
            parameters=parameters or {},
            timeout_s=600,
            requested_at=LocalClock().now(),
        )

    def dispatch(self, *requests: StepRequested) -> None:
        futures = []
        for request in requests:
            record = envelope.command(request, codec().encode(request))
            futures.append(self._publisher.publish(record.topic, record.key, record.value, record.headers))
        for future in futures:
            future.result(30)

    def revoke(self, request: StepRequested, **named: str) -> None:
        control = StepControl(
            execution_id=request.execution_id,
            tenant=request.tenant,
            kind="revoke",
            reason="cancelled",
            issued_at=LocalClock().now(),
            **named,
        )
        record = envelope.command(control, codec().encode(control))
        self._publisher.publish(record.topic, record.key, record.value, record.headers).result(30)

    def send(self, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        self._publisher.publish("step.requested", b"some key", value, headers).result(30)

    def read(self) -> None:
        while (message := self._consumer.poll(0.05)) is not None:
            if message.error() is None:
                headers: Any = message.headers() or []
                read = Read(message.value() or b"", dict(headers), message.key() or b"")
                self.records.setdefault(message.topic() or "", []).append(read)

    def outcomes(self, request: StepRequested) -> list[StepOutcome]:
        return [
            outcome
            for outcome in self._said("step.completed", request)
            if isinstance(outcome, StepOutcome) and outcome.attempt_id == request.attempt_id
        ]

    def reports(self, request: StepRequested, kind: str) -> list[StepReport]:
        return [
            report
            for report in self._said("step.progressed", request)
            if isinstance(report, StepReport)
            and (report.attempt_id, report.kind) == (request.attempt_id, kind)
        ]

    def _said(self, topic: str, request: StepRequested) -> list[Record]:
        """Of this execution alone: other tests put on the topic what nobody can decode."""
        self.read()
        key = request.execution_id.encode()
        return [codec().decode(topic, read.value) for read in self.records.get(topic, []) if read.key == key]

    def outcome(self, request: StepRequested, timeout_s: float = 30) -> StepOutcome:
        return until(lambda: self.outcomes(request), timeout_s, f"the outcome of {request.attempt_id}")[0]


def readiness(process: subprocess.Popen[bytes], port: int, log: Path) -> Callable[[], bool]:
    """Whether a process is ready, as a question; the test fails with its log once it has ended."""

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except URLError:
            return False

    return ready


@dataclass
class Workers:
    """Starts worker processes."""

    stack: Stack
    folder: Path
    source_url: str
    protocol: str = "classic"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, **settings: str) -> tuple[subprocess.Popen[bytes], Callable[[], bool]]:
        """A worker, and a question for its readiness."""
        port = free_port(0, set())
        environment = {
            "PATH": os.environ["PATH"],
            "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": self.stack.bootstrap,
            "MILLSTREAM_KAFKA__GROUP_PROTOCOL": self.protocol,
            "MILLSTREAM_BLOBS__URL": f"file://{self.folder}/blobs",
            "MILLSTREAM_FILES__KEYS": exporting.keys_text(),
            "MILLSTREAM_SOURCES__MAIN": self.source_url,
            "MILLSTREAM_SOURCES__MAIN__TENANTS": "*",
            "MILLSTREAM_HEALTH__PORT": str(port),
            "MILLSTREAM_WORKER__LOG_FOLDER": str(self.folder / "executor_logs"),
            **settings,
        }
        with (self.folder / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "services.executor", "worker"]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process, readiness(process, port, self.folder / "worker.log")

    def started(self, **settings: str) -> subprocess.Popen[bytes]:
        """A worker that is ready."""
        process, ready = self.start(**settings)
        until(ready, REJOIN_S, "a ready worker")
        return process

    def end(self) -> None:
        """Stop them all; they leave the group, so that no later test waits for a session to expire."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)

    def content(self, key: str) -> bytes:
        """The plain bytes of a finished file."""
        return exporting.opened(blobs.connect(f"file://{self.folder}/blobs"), key)

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()


def committed(stack: Stack, queue: str = "step.requested") -> int:
    """How many records of the queue its group has settled."""
    consumer = Consumer(kafka.consumer_config(stack.kafka, "tests-offsets", QUEUES[queue]))
    partitions = [TopicPartition(queue, index) for index in range(12)]

    def found() -> list[TopicPartition] | None:
        try:
            return consumer.committed(partitions, timeout=10)
        except KafkaException:  # a broker that has just started has no coordinator for a moment
            return None

    try:
        offsets = until(found, 30, f"the offsets of {QUEUES[queue]}")
        return sum(max(partition.offset, 0) for partition in offsets)
    finally:
        consumer.close()


SLOW = """
CREATE FUNCTION public.wait() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    WHILE NOT pg_try_advisory_xact_lock_shared(1) LOOP PERFORM pg_sleep(0.05); END LOOP;
    RETURN 1;
END $$;
CREATE VIEW public.slow AS SELECT public.wait() AS id;
"""


def slow_source(workers: Workers) -> dict[str, Any]:
    """The parameters of an export that runs until the gate is open."""
    with transaction(workers.source_url) as cursor:
        cursor.execute(SLOW)
    dataset = {"source": "main", "table": "public.slow", "columns": [{"name": "id", "type": "integer"}]}
    parameters: dict[str, Any] = exporting.step(dataset).parameters
    return parameters


@dataclass
class Gate:
    """While closed, exports of the slow source wait."""

    connection: Any

    def open(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(1)")

    def waiting(self) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%'"
                " AND datname = current_database()"
            )
            return int(cursor.fetchone()[0])
