"""Records that are small on the wire and large in memory: no process stops for one, over restarts either."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from services.contracts.commands import JobRequested
from services.contracts.partition import partition_of
from services.runtime import blobs, entropy, kafka
from services.runtime.entropy import LocalClock
from services.runtime.processor.letters import HEAD_BYTES
from tests.claims import claimed
from tests.managing import Client, Managers
from tests.stack import OwnStack
from tests.waiting import until
from tests.working import Manager, Workers

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

BOMB = b"\0" * 3_000_000
"""Three million bytes in a record of a few hundred: every topic takes it."""


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """The processes use the fixed topic names."""
    return own


@pytest.fixture
def managers(own: OwnStack, tmp_path: Path) -> Iterator[Managers]:
    """None is started."""
    managers = Managers(own, tmp_path, own.fresh_database())
    yield managers
    managers.end()


@pytest.fixture
def client(own: OwnStack) -> Iterator[Client]:
    client = Client(own)
    yield client
    client.close()


def bomb(stack: OwnStack, topic: str, index: int) -> None:
    """Produce it as a stranger does, who has set the limits of his client himself."""
    config = {"bootstrap.servers": stack.bootstrap, "message.max.bytes": 100_000_000}
    producer = Producer({**config, "compression.type": "zstd"})
    producer.produce(topic, BOMB, b"k", partition=index)
    assert producer.flush(30) == 0


def letter_of(stack: OwnStack, topic: str, index: int) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """Value and headers of the dead letter of a record of that partition."""
    consumer = Consumer(kafka.consumer_config(stack.kafka, "tests-letters", "tests-letters"))
    consumer.assign([TopicPartition(f"{topic}.dlq", 0, OFFSET_BEGINNING)])

    def found() -> tuple[bytes, tuple[tuple[str, bytes], ...]] | None:
        message = consumer.poll(0.2)
        if message is None or message.error() is not None:
            return None
        headers: Any = tuple(message.headers() or [])
        if not dict(headers)["ms_origin"].startswith(f"{topic}/{index}/".encode()):
            return None
        return message.value() or b"", headers

    try:
        return until(found, 60, f"a dead letter on {topic}.dlq")
    finally:
        consumer.close()


def holds_the_bomb(stack: OwnStack, topic: str, index: int, folder: Path) -> None:
    """Head, size, hash and the address of the whole record."""
    value, headers = letter_of(stack, topic, index)
    told = dict(headers)
    assert value == BOMB[:HEAD_BYTES]
    assert told["ms_bytes"] == str(len(BOMB)).encode()
    assert told["ms_sha256"] == hashlib.sha256(BOMB).hexdigest().encode()
    assert claimed(blobs.connect((folder / "blobs").as_uri()), headers) == (b"k", BOMB, ())


def noop() -> JobRequested:
    return JobRequested(
        execution_id=entropy.fresh_id(),
        tenant="acme",
        requested_at=LocalClock().now(),
        created_by="alice",
        name="after the bomb",
        job_type="noop",
    )


TOPICS = ("job.requested", "execution.commands", "step.progressed", "step.completed", "definition.state")


def test_no_bomb_on_an_input_stops_the_manager(
    client: Client, managers: Managers, workers: Workers, own: OwnStack, tmp_path: Path
) -> None:
    good = noop()
    index = partition_of(good.execution_id.encode(), 12)
    managers.started()
    workers.started()
    for topic in TOPICS:
        bomb(own, topic, index)
    client.say(good)
    client.wait(good.execution_id, "execution.completed", timeout_s=60)
    for topic in TOPICS:
        holds_the_bomb(own, topic, index, tmp_path)
    managers.end()
    managers.processes.clear()
    managers.started()
    again = noop()
    client.say(again)
    client.wait(again.execution_id, "execution.completed", timeout_s=60)


@pytest.mark.parametrize("waits", [True, False], ids=["it waits for the worker", "it comes later"])
def test_no_bomb_stops_a_worker(
    manager: Manager, workers: Workers, own: OwnStack, tmp_path: Path, waits: bool
) -> None:
    index = 3 if waits else 4
    if waits:
        bomb(own, "step.requested", index)
    worker = workers.started()
    if not waits:
        bomb(own, "step.requested", index)
    request = manager.request()
    manager.dispatch(request)
    assert manager.outcome(request).outcome == "done"
    holds_the_bomb(own, "step.requested", index, tmp_path)
    assert worker.poll() is None
