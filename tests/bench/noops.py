"""Many requests that do nothing through the topics, and what the log says became of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2
from confluent_kafka import Consumer, TopicPartition
from msgspec.structs import replace

from services.contracts import envelope
from services.contracts.commands import Definition, JobRequested, Json
from services.contracts.events import TERMINAL
from services.runtime import entropy, kafka
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from tests.bench.system import System
from tests.waiting import until

EVENTS = "execution.events"
EVENTS_PER_JOB = 5
"""execution.accepted, execution.started, step.running, step.completed, execution.completed."""
PARTITIONS = range(12)
TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 120.0

_ENDS = {name.encode() for name in TERMINAL}


def requests(count: int) -> list[JobRequested]:
    """Requests that nobody made before."""
    now = entropy.LocalClock().now()
    return [
        JobRequested(
            execution_id=entropy.fresh_id(),
            tenant="bench",
            requested_at=now,
            created_by="bench",
            name="nothing",
            job_type="noop",
        )
        for _ in range(count)
    ]


def pipelines(count: int, steps: int) -> list[JobRequested]:
    """Requests for a pipeline of so many NOOP steps, one after the other."""
    names = [f"step {number}" for number in range(1, steps + 1)]
    body = {"steps": [{"step_name": name, "step_type": "NOOP"} for name in names]}
    definition = Definition(kind="pipeline", id="nothing", revision=1, body=body)
    parameters: Json = {"values": {}, "time_range": None}
    return [
        replace(request, job_type="pipeline", definition=definition, parameters=parameters)
        for request in requests(count)
    ]


def events_of(steps: int) -> int:
    """How many events an execution of so many steps has."""
    return 3 + 2 * steps


def publish(publisher: Publisher, wanted: Iterable[JobRequested]) -> None:
    """Put them on `job.requested`, acknowledged."""
    encode = codec().encode
    futures = []
    for request in wanted:
        record = envelope.command(request, encode(request))
        futures.append(publisher.publish(record.topic, record.key, record.value, record.headers))
    for future in futures:
        future.result(TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Told:
    """What the log tells of a run: the instants of the first take and of the last end."""

    first_take: datetime
    last_end_s: float

    @property
    def seconds(self) -> float:
        """From the manager's first take to the last terminal event."""
        return self.last_end_s - self.first_take.timestamp()


class Log:
    """`execution.events` from its end as of now."""

    def __init__(self, system: System) -> None:
        self._consumer = Consumer(
            kafka.consumer_config(system.stack.kafka, "bench", "bench") | {"auto.offset.reset": "earliest"}
        )
        self._from = self._ends()

    def count(self) -> int:
        """How many events came since."""
        return sum(self._ends()) - sum(self._from)

    def ends(self) -> dict[int, int]:
        """The end of each partition."""
        return dict(enumerate(self._ends()))

    def read(self, wanted: set[bytes]) -> Told:
        """The events since, until all these executions have completed.

        A manager that starts publishes again what its predecessor committed last: others are passed over.
        """
        self._consumer.assign([TopicPartition(EVENTS, part, self._from[part]) for part in PARTITIONS])
        takes: list[bytes] = []
        ends: dict[bytes, int] = {}
        while len(ends) < len(wanted):
            found = self._consumer.consume(5000, 0.5) or self._consumer.consume(1, TIMEOUT_S)
            assert found, f"{len(wanted) - len(ends)} ends are missing"
            for message in found:
                headers: Any = dict(message.headers() or ())
                if message.key() not in wanted:
                    continue
                if headers["ce_type"] == b"execution.accepted":
                    takes.append(headers["ce_time"])
                elif headers["ce_type"] in _ENDS:
                    ends[message.key() or b""] = message.timestamp()[1]
                    assert headers["ce_type"] == b"execution.completed", codec().decode(
                        EVENTS, message.value()
                    )
        return Told(datetime.fromisoformat(min(takes).decode()), max(ends.values()) / 1000)

    def close(self) -> None:
        """Let go of it."""
        self._consumer.close()

    def _ends(self) -> list[int]:
        return [
            self._consumer.get_watermark_offsets(TopicPartition(EVENTS, part), TIMEOUT_S)[1]
            for part in PARTITIONS
        ]


class Followers:
    """How far the loops that read `execution.events` are, as they have committed it."""

    def __init__(self, system: System, schemas: tuple[str, ...]) -> None:
        self._connection = psycopg2.connect(system.database_url)
        self._connection.autocommit = True
        self._schemas = schemas

    def at(self, ends: dict[int, int]) -> bool:
        """Whether all have reached these ends."""
        return all(self._offsets(schema) == ends for schema in self._schemas)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _offsets(self, schema: str) -> dict[int, int]:
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT part, next_offset FROM {schema}.part_offset WHERE topic = %s", (EVENTS,))
            return dict(cursor.fetchall())


def queue(system: System, wanted: Iterable[JobRequested]) -> set[bytes]:
    """Put requests where nobody reads them yet; their keys."""
    publisher = Publisher(system.stack.kafka, "bench")
    publish(publisher, asked := [*wanted])
    publisher.close(5)
    return {request.execution_id.encode() for request in asked}


def drain_s(system: System, requests: Iterable[JobRequested], events_per_job: int) -> float:
    """Seconds that one manager and one worker take for what was queued before they started."""
    wanted = queue(system, requests)
    log = Log(system)
    processes = [system.service("worker"), system.service("manager")]
    until(lambda: log.count() >= len(wanted) * events_per_job, DRAIN_TIMEOUT_S, "the last event")
    told = log.read(wanted)
    for process in processes:
        process.stop()
    log.close()
    return told.seconds
