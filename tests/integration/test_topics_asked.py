"""What is asked of topics while the broker stands still, and by whom afterwards."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import OffsetSpec

from services.runtime.processor.kafka import KafkaLog
from services.runtime.processor.types import Backpressure
from services.runtime.settings import Kafka
from services.runtime.topics import Topics
from tests.stack import Stack

pytestmark = [pytest.mark.kafka]

TOPIC = "job.requested"


class Moving(Kafka, frozen=False):
    """Settings of a broker that the test moves; a client keeps to the address that it was made with."""


@pytest.fixture
def settings() -> Iterator[Moving]:
    """Of a broker that stands still: the kernel takes connections for it, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as still:
        yield Moving(bootstrap_servers=f"127.0.0.1:{still.getsockname()[1]}")


@pytest.mark.parametrize(
    "ask",
    [
        lambda topics: topics.facts([TOPIC])[TOPIC].partition_count,
        lambda topics: len(topics.offsets([(TOPIC, 0)], OffsetSpec.latest())),
    ],
    ids=["facts", "offsets"],
)
def test_a_client_that_has_failed_is_asked_nothing_more(
    stack: Stack, settings: Moving, ask: Callable[[Topics], int]
) -> None:
    with closing(Topics(settings, "tests", 1.0)) as topics:
        with pytest.raises(KafkaException):
            ask(topics)
        settings.bootstrap_servers = stack.bootstrap
        assert ask(topics)


def test_a_loop_asks_a_new_client_after_its_broker_has_stood_still(stack: Stack, settings: Moving) -> None:
    with closing(KafkaLog(settings, "tests-asked", "tests-asked")) as log:
        with pytest.raises(Backpressure, match="broker"):
            log.topic_ids([TOPIC])
        settings.bootstrap_servers = stack.bootstrap
        assert log.topic_ids([TOPIC])
