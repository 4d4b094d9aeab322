"""The two worlds that the loop's conformance suite runs in: memory, and Kafka with PostgreSQL."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

from services.contracts.envelope import Outgoing
from services.runtime import blobs, kafka, settings
from services.runtime.blobs import Blobs
from services.runtime.entropy import LocalClock
from services.runtime.memory.log import Broker, MemoryLog
from services.runtime.memory.store import MemoryStore, Tables
from services.runtime.processor import tables
from services.runtime.processor.kafka import KafkaLog
from services.runtime.processor.letters import Letters
from services.runtime.processor.log import Log
from services.runtime.processor.outbox import pack
from services.runtime.processor.postgres import PostgresStore
from services.runtime.processor.store import Store
from services.runtime.processor.types import Contended, DataError, Input, Row
from tests.claims import in_memory
from tests.conformance.counting import Count, Counting
from tests.stack import Stack, transaction
from tests.waiting import until

PARTITIONS = 4
SEAT = "seat"
"""A row of which there is only one: the writer refuses another as contended."""
_number = count(1)


class World(Protocol):
    """A place with two inputs, one output, and room for several members."""

    handler: Counting
    blobs: Blobs

    def letters(self) -> Letters: ...
    def put_compressed(self, topic: str, key: str, value: bytes) -> None: ...
    def leave_behind(self, index: int, records: Sequence[Outgoing]) -> None: ...
    def limit(self, topic: str, record_bytes_max: int) -> None: ...
    def remove(self, topic: str) -> None: ...
    def make(self, topic: str) -> None: ...
    def topic(self, base: str) -> str: ...
    def store(self) -> Store: ...
    def log(self) -> Log: ...
    def put(self, topic: str, key: str, value: bytes | None, partition: int | None = None) -> None: ...
    def records(self, topic: str) -> list[Input]: ...
    def rewind(self) -> None: ...
    def recreate(self, topic: str) -> None: ...
    def row_texts(self) -> list[str]: ...


def state_of(world: World, key: str) -> Count | None:
    """A key's state as committed."""
    row = world.store().load([key]).get(key)
    return world.handler.decode(key, row.body) if row and row.body else None


def answers(world: World) -> list[tuple[str, str]]:
    """Key and text of every answer in the output."""
    return [
        ((record.key or b"").decode(), (record.value or b"").decode())
        for record in world.records(world.handler.output)
    ]


class MemoryWorld:
    """Everything in memory."""

    def __init__(self) -> None:
        self.handler = Counting(("in.a", "in.b"), "out")
        self.broker = Broker(PARTITIONS)
        self.broker.create("in.a", "in.b", "out", "in.a.dlq", "in.b.dlq", "out.dlq")
        self.tables = Tables(LocalClock())
        self.blobs = blobs.in_memory()

    def letters(self) -> Letters:
        return in_memory(self.blobs)

    def put_compressed(self, topic: str, key: str, value: bytes) -> None:
        self.put(topic, key, value)

    def leave_behind(self, index: int, records: Sequence[Outgoing]) -> None:
        self.tables.outboxes[index] = pack(records)

    def limit(self, topic: str, record_bytes_max: int) -> None:
        self.broker.record_bytes_max[topic] = record_bytes_max

    def remove(self, topic: str) -> None:
        del self.broker.topics[topic]

    def topic(self, base: str) -> str:
        return base

    def store(self) -> MemoryStore:
        return MemoryStore(self.tables, _refuse)

    def log(self) -> MemoryLog:
        return MemoryLog(self.broker)

    def put(self, topic: str, key: str, value: bytes | None, partition: int | None = None) -> None:
        self.broker.append(Outgoing(topic, key.encode(), value), partition)

    def records(self, topic: str) -> list[Input]:
        return self.broker.records(topic)

    def rewind(self) -> None:
        self.tables.offsets = {spot: (id, 0) for spot, (id, _) in self.tables.offsets.items()}

    def recreate(self, topic: str) -> None:
        self.broker.create(topic)

    def make(self, topic: str) -> None:
        self.broker.create(topic)

    def row_texts(self) -> list[str]:
        return [row.values["text"] for row in self.tables.rows]


class RealWorld:
    """Topics and a database of its own on the shared servers."""

    def __init__(self, stack: Stack, group_protocol: str = "classic") -> None:
        tag = f"w{os.getpid()}x{next(_number)}"
        self.stack = stack
        self.kafka = stack.kafka.model_copy(update={"group_protocol": group_protocol})
        self.handler = Counting((f"in.a.{tag}", f"in.b.{tag}"), f"out.{tag}", tag)
        self._admin = kafka.Admin(stack.kafka, f"world-{tag}")
        topics = (*self.handler.inputs, self.handler.output)
        self._create(*topics, *(f"{topic}.dlq" for topic in topics))
        self.blobs = blobs.in_memory()
        self.publisher = kafka.Publisher(stack.kafka, f"world-{tag}")
        self.database_url = stack.fresh_database()
        with self.sql() as cursor:
            cursor.execute(f"CREATE SCHEMA {tag}")
            cursor.execute(tables.ddl(tag))
            cursor.execute(f"CREATE TABLE {tag}.seen (key text, text text)")

    def sql(self) -> AbstractContextManager[Any]:
        return transaction(self.database_url)

    def store(self) -> PostgresStore:
        return PostgresStore(self.database_url, self.handler.name, writer(self.handler.name))

    def log(self) -> KafkaLog:
        name = self.handler.name
        return KafkaLog(self.kafka, name, f"{name}-{next(_number)}")

    def letters(self) -> Letters:
        return in_memory(self.blobs)

    def put_compressed(self, topic: str, key: str, value: bytes) -> None:
        size = {"message.max.bytes": 100_000_000, "compression.type": "zstd"}
        producer = Producer({"bootstrap.servers": self.stack.bootstrap, **size})
        producer.produce(self.topic(topic), value, key)
        assert producer.flush(20) == 0

    def leave_behind(self, index: int, records: Sequence[Outgoing]) -> None:
        with self.sql() as cursor:
            cursor.execute(
                f"INSERT INTO {self.handler.name}.part_outbox VALUES (%s, 0, %s)", (index, pack(records))
            )

    def limit(self, topic: str, record_bytes_max: int) -> None:
        entry = ConfigEntry(
            "max.message.bytes", str(record_bytes_max), incremental_operation=AlterConfigOpType.SET
        )
        changed = ConfigResource(ResourceType.TOPIC, self.topic(topic), incremental_configs=[entry])
        for future in self._admin.incremental_alter_configs([changed]).values():
            future.result(20)

    def remove(self, topic: str) -> None:
        name = self.topic(topic)
        self._admin.delete_topics([name], operation_timeout=20)[name].result(20)

    def put(self, topic: str, key: str, value: bytes | None, partition: int | None = None) -> None:
        place = -1 if partition is None else partition
        self.publisher.publish(self.topic(topic), key.encode(), value, (), place).result(20)

    def topic(self, base: str) -> str:
        """The real name of `in.a`, `in.b`, `out` or one of their dead-letter topics."""
        if base.endswith(".dlq") and self.handler.name not in base:
            return f"{self.topic(base.removesuffix('.dlq'))}.dlq"
        return base if self.handler.name in base else f"{base}.{self.handler.name}"

    def records(self, topic: str) -> list[Input]:
        found: list[list[Input]] = []
        until(lambda: _read_into(found, self.stack.kafka, self.topic(topic)), 20, f"{topic} to be readable")
        return found[0]

    def rewind(self) -> None:
        with self.sql() as cursor:
            cursor.execute(f"UPDATE {self.handler.name}.part_offset SET next_offset = 0")

    def recreate(self, topic: str) -> None:
        self.remove(topic)
        self.make(topic)

    def make(self, topic: str) -> None:
        self._create(self.topic(topic))

    def row_texts(self) -> list[str]:
        with self.sql() as cursor:
            cursor.execute(f"SELECT text FROM {self.handler.name}.seen")
            return [text for (text,) in cursor.fetchall()]

    def member_environment(self) -> dict[str, str]:
        """What tests/conformance/member.py needs to join as another process."""
        inputs = json.dumps([self.handler.name, self.handler.inputs, self.handler.output])
        return {
            "WORLD": inputs,
            "BOOTSTRAP": self.stack.bootstrap,
            "PROTOCOL": self.kafka.group_protocol,
            "DATABASE": self.database_url,
        }

    def close(self) -> None:
        self.publisher.close(5.0)
        self._admin.close()

    def _create(self, *names: str) -> None:
        # A dead letter is larger than its record by its reasons.
        sizes = {name: "2097152" if name.endswith(".dlq") else "1048588" for name in names}
        topics = [NewTopic(name, PARTITIONS, 1, config={"max.message.bytes": sizes[name]}) for name in names]
        for future in self._admin.create_topics(topics, operation_timeout=20).values():
            future.result(20)


def writer(schema: str) -> Callable[[Any, Any], None]:
    """Writes rows, so that data the database refuses can be met."""

    def write(cursor: Any, rows: list[Row]) -> None:
        for row in rows:
            # As an escape the NUL reaches the server, which refuses it (SQLSTATE 22); raw, the driver does.
            raw = row.values["text"].startswith("raw")
            text = row.values["text"] if raw else row.values["text"].replace("\x00", "\\u0000")
            cursor.execute(
                f"INSERT INTO {schema}.seen VALUES (%s, %s::jsonb #>> '{{}}')",
                (row.values["key"], f'"{text}"'),
            )
        if any(row.values["text"] == SEAT for row in rows):
            cursor.execute(f"SELECT count(*) FROM {schema}.seen WHERE text = %s", (SEAT,))
            _check_seats(cursor.fetchone()[0])

    return write


def _refuse(store: MemoryStore, rows: Sequence[Row]) -> None:
    if any("\x00" in row.values["text"] for row in rows):
        raise DataError("a text holds NUL")
    if any(row.values["text"] == SEAT for row in rows):
        _check_seats(sum(row.values["text"] == SEAT for row in (*store.tables.rows, *rows)))


def _check_seats(taken: int) -> None:
    if taken > 1:
        raise Contended(f"there is one seat, and {taken} want it")


def _read_into(found: list[list[Input]], where: settings.Kafka, topic: str) -> bool:
    """The broker's own view of a topic lags behind its creation."""
    try:
        found.append(read_all(where, topic))
    except KafkaException as error:
        if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
            raise
    return bool(found)


def read_all(where: settings.Kafka, topic: str) -> list[Input]:
    """Every record of a topic up to its present end."""
    reader = Consumer({"bootstrap.servers": where.bootstrap_servers, "group.id": "reader"})
    try:
        parts = reader.list_topics(topic, 10).topics[topic].partitions
        spots = {}
        for part in parts:
            low, high = reader.get_watermark_offsets(TopicPartition(topic, part), 10)
            if high > low:
                spots[part] = (low, high)
        found: list[Input] = []
        reader.assign([TopicPartition(topic, part, low) for part, (low, _) in spots.items()])
        left = {part: high for part, (_, high) in spots.items()}
        while left:
            message = reader.poll(10)
            assert message is not None, f"{topic} gave no record for 10 s; still expected up to {left}"
            assert message.error() is None, message.error()
            part, offset = message.partition() or 0, message.offset() or 0
            pairs: Any = message.headers() or ()
            found.append(Input(topic, part, offset, message.key(), message.value(), tuple(pairs)))
            if part in left and offset + 1 >= left[part]:
                del left[part]
        return found
    finally:
        reader.close()
