"""The relay: every committed record reaches the broker, and a key's records of a serial topic in order."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg2
import pytest
from confluent_kafka import Consumer, TopicPartition

from services.contracts.envelope import Outgoing
from services.runtime import kafka, outbox
from services.runtime.kafka import Batch, Publisher, Unsent
from services.runtime.outbox import Relay
from tests.claims import in_memory
from tests.stack import Stack, transaction
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


class World:
    """A database with an outbox, and topics of its own."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.url = stack.fresh_database()
        self.topic = stack.fresh_topics({"job.requested": 1})["job.requested"]
        self.execute(f"CREATE SCHEMA api; {outbox.ddl('api')}")

    def execute(self, statement: str) -> None:
        self.transact(lambda cursor: cursor.execute(statement))

    def transact(self, work: Callable[[psycopg2.extensions.cursor], object]) -> object:
        with transaction(self.url) as cursor:
            return work(cursor)

    def add(self, *records: tuple[str, str]) -> None:
        """Commit (key, value) pairs as another process would: nobody wakes the relay."""
        rows = [Outgoing(self.topic, k.encode(), v.encode(), (("h", b"1"),)) for k, v in records]
        self.transact(lambda cursor: outbox.add(cursor, "api", rows))

    def left(self) -> int:
        def count(cursor: psycopg2.extensions.cursor) -> int:
            cursor.execute("SELECT count(*) FROM api.outbox")
            row = cursor.fetchone()
            return int(row[0]) if row else 0

        found = self.transact(count)
        assert isinstance(found, int)
        return found

    def published(self) -> list[tuple[str, str]]:
        """What lies on the topic, in order."""
        consumer = Consumer(kafka.consumer_config(self.stack.kafka, "tests", "tests"))
        try:
            spot = TopicPartition(self.topic, 0, 0)
            _, high = consumer.get_watermark_offsets(spot, timeout=10)
            consumer.assign([spot])
            messages = [consumer.consume(1, 10)[0] for _ in range(high or 0)]
        finally:
            consumer.close()
        assert all(message.headers() == [("h", b"1")] for message in messages)
        return [((m.key() or b"").decode(), (m.value() or b"").decode()) for m in messages]

    @contextmanager
    def relays(self, number: int, serial: bool = False, publisher: Publisher | None = None) -> Iterator[None]:
        publisher = publisher or Publisher(self.stack.kafka, "tests")
        topics = frozenset({self.topic}) if serial else frozenset[str]()
        running = [Relay(self.url, "api", publisher, in_memory(), topics) for _ in range(number)]
        for relay in running:
            relay.start()
        try:
            yield
        finally:
            for relay in running:
                relay.close(5)
            publisher.close(5)


@pytest.fixture
def world(stack: Stack) -> World:
    return World(stack)


def test_another_processes_commit_is_published_without_a_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SWEEP_S", 600.0)
    with world.relays(1):
        world.add(("a", "1"))
        until(lambda: world.left() == 0, 20, "the first record to leave")
        world.add(("a", "2"))
        until(lambda: world.left() == 0, 20, "the second record to leave")
    assert world.published() == [("a", "1"), ("a", "2")]


def test_a_commit_in_the_middle_of_a_pass_is_published_without_a_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its notification comes with the answer to the pass's own commit; the socket is silent afterwards."""
    monkeypatch.setattr(outbox, "SWEEP_S", 600.0)
    later = iter([("a", "2")])

    class Interrupted(Publisher):
        def publish_all(self, topic: str, records: Sequence[Unsent]) -> Batch:
            if record := next(later, None):
                world.add(record)
            return super().publish_all(topic, records)

    with world.relays(1, publisher=Interrupted(world.stack.kafka, "tests")):
        world.add(("a", "1"))
        until(lambda: world.left() == 0, 20, "both records to leave")
    assert world.published() == [("a", "1"), ("a", "2")]


def test_relays_at_once_publish_each_record_once(world: World) -> None:
    records = [(f"k{n % 7}", str(n)) for n in range(1500)]
    with world.relays(3):
        for start in range(0, 1500, 100):
            world.add(*records[start : start + 100])
        until(lambda: world.left() == 0, 60, "all records to leave")
    assert sorted(world.published()) == sorted(records)


def test_a_serial_topic_keeps_the_order_of_each_key(world: World) -> None:
    records = [(f"k{n % 3}", str(n)) for n in range(1200)]
    with world.relays(3, serial=True):
        for start in range(0, 1200, 60):
            world.add(*records[start : start + 60])
        until(lambda: world.left() == 0, 60, "all records to leave")
    found = world.published()
    for key in ("k0", "k1", "k2"):
        assert [v for k, v in found if k == key] == [v for k, v in records if k == key]


def test_what_is_rolled_back_is_never_published(world: World) -> None:
    def fail(cursor: psycopg2.extensions.cursor) -> None:
        outbox.add(cursor, "api", [Outgoing(world.topic, b"x", b"never")])
        raise RuntimeError

    with world.relays(1):
        with pytest.raises(RuntimeError):
            world.transact(fail)
        world.add(("a", "1"))
        until(lambda: world.left() == 0, 20, "the record to leave")
    assert world.published() == [("a", "1")]


def test_a_record_too_large_for_the_broker_is_refused_at_once(world: World) -> None:
    large = Outgoing(world.topic, b"x", bytes(outbox.VALUE_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="at most 900000 bytes, found 900001"):
        world.transact(lambda cursor: outbox.add(cursor, "api", [large]))
    assert world.left() == 0


def test_closing_publishes_what_is_left(world: World) -> None:
    world.add(*[("a", str(n)) for n in range(1200)])
    with world.relays(1):
        pass
    assert world.left() == 0
    assert len(world.published()) == 1200
