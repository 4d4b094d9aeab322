"""The publisher while no broker answers: bounded, never silent."""

import pytest

from services.runtime import kafka
from services.runtime.kafka import ProducerFull, PublishFailed
from services.runtime.settings import Kafka

NOWHERE = Kafka(bootstrap_servers="127.0.0.1:1")


def test_a_full_queue_is_back_pressure_and_every_future_ends() -> None:
    publisher = kafka.Publisher(NOWHERE, "tests")
    futures = [publisher.publish("job.requested", b"key", b"value") for _ in range(100_000)]
    with pytest.raises(ProducerFull):
        publisher.publish("job.requested", b"key", b"value")
    assert publisher.close(0.01) == len(futures)
    for future in futures:
        with pytest.raises(PublishFailed, match=r"job\.requested"):
            future.result(0)


def test_producers_agree_on_order_partition_and_safety() -> None:
    config = kafka.producer_config(NOWHERE, "tests")
    assert config["enable.idempotence"] is True
    assert config["acks"] == "all"
    assert config["partitioner"] == "murmur2_random"
    consumer = kafka.consumer_config(NOWHERE, "tests", "group")
    assert consumer["partition.assignment.strategy"] == "range"
    assert consumer["enable.auto.commit"] is False
    assert consumer["auto.offset.reset"] == "error"
