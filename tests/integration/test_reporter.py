"""The reporter on a real broker: what could not be sent is sent later."""

from collections.abc import Iterator

import pytest

from services.contracts.envelope import Outgoing
from services.executor.work.reporter import Reporter
from services.runtime.entropy import LocalClock
from services.runtime.kafka import Headers, OnDelivery, ProducerFull, Publisher
from services.runtime.schemas import codec
from tests.claims import in_memory
from tests.stack import Stack
from tests.waiting import until

pytestmark = pytest.mark.kafka


class Busy(Publisher):
    """Is full at first. Later others publish in the middle of each call, as threads do."""

    full = True
    others: Reporter

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        on_delivery: OnDelivery,
        partition: int = -1,
    ) -> None:
        if self.full:
            raise ProducerFull("full")
        self.others.resend()
        super().send(topic, key, value, headers, on_delivery, partition)


@pytest.fixture
def publisher(stack: Stack) -> Iterator[Busy]:
    publisher = Busy(stack.kafka, "tests-reporter")
    yield publisher
    assert publisher.close(10) == 0


def test_two_that_send_again_at_once_send_everything_once(stack: Stack, publisher: Busy) -> None:
    """The watches of both kinds of lanes do."""
    topic = stack.fresh_topics({"unsent": 1})["unsent"]
    reporter = publisher.others = Reporter(publisher, codec(), LocalClock(), in_memory())
    acknowledged: list[int] = []
    for number in range(20):
        record = Outgoing(topic, b"key", b"value", ())
        reporter.deliver(record, lambda number=number: acknowledged.append(number))  # type: ignore[misc]
    publisher.full = False
    reporter.resend()
    until(lambda: len(acknowledged) >= 20, 10, "every acknowledgement")
    assert sorted(acknowledged) == [*range(20)]
