"""Reading a topic from outside of every group: nothing is committed, nobody else notices."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from services.cli.failure import Failed
from services.runtime import entropy, kafka
from services.runtime.settings import Kafka

TIMEOUT_S = 10.0
RETRY_S = 0.2
BATCH = 2000
MOVING = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
Spot = tuple[str, int]
Bounds = Mapping[Spot, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Stored:
    """A record where it lies."""

    topic: str
    partition: int
    offset: int
    at: datetime
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def address(self) -> str:
        """`topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def header(self, name: str) -> str | None:
        """The last header of this name as text."""
        found = [value for known, value in self.headers if known == name]
        return found[-1].decode("utf-8", "replace") if found else None


class Log:
    """One reader of a broker. Use: `opened`."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._admin = kafka.Admin(settings, "millstream-cli")
        config = kafka.consumer_config(settings, "millstream-cli", f"millstream-cli-{entropy.fresh_id()}")
        self._consumer = Consumer(config | {"enable.partition.eof": True, "fetch.wait.max.ms": 500})

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
        self._admin.close()

    def partitions(self, topic: str) -> int:
        """How many. Raises Failed: there is no such topic."""
        return len(self.spots([topic]))

    def spots(self, topics: Sequence[str]) -> list[Spot]:
        """Every partition of these topics. Raises Failed: one does not exist."""
        facts = kafka.topic_facts(self._admin, topics)
        for topic in topics:
            if topic not in facts:
                raise Failed(
                    f"{topic}: expected a topic of the broker, found none; `millstream topics apply` makes it"
                )
        return [(topic, index) for topic in topics for index in range(facts[topic].partition_count)]

    def bounds(self, spots: Sequence[Spot]) -> Bounds:
        """(first offset, the one after the last) of each spot."""
        asked = [TopicPartition(*spot) for spot in spots]
        first = self._offsets(dict.fromkeys(asked, OffsetSpec.earliest()))
        end = self._offsets(dict.fromkeys(asked, OffsetSpec.latest()))
        return {spot: (first[spot], end[spot]) for spot in spots}

    def offsets_at(self, spots: Sequence[Spot], at: datetime) -> Mapping[Spot, int]:
        """The first offset of each spot written at or after an instant; -1 where there is none."""
        spec = OffsetSpec.for_timestamp(int(at.timestamp() * 1000))
        return self._offsets({TopicPartition(*spot): spec for spot in spots})

    def read(self, ranges: Bounds) -> Iterator[Stored]:
        """The records from the first to before the second offset of each spot. Raises KafkaException."""
        left = {spot: end for spot, (start, end) in ranges.items() if start < end}
        self._consumer.assign([TopicPartition(*spot, ranges[spot][0]) for spot in left])
        while left:
            for message in self._messages():
                spot = (message.topic() or "", message.partition() or 0)
                if (record := _stored(message)) is not None and spot in left and record.offset < left[spot]:
                    yield record
                # offsets may have gaps (compaction, transactions), so the end is met by position as well
                if spot in left and (message.offset() or 0) + 1 >= left[spot]:
                    left.pop(spot)

    def follow(self, starts: Mapping[Spot, int]) -> Iterator[Stored]:
        """Records from these offsets on, for ever."""
        self._consumer.assign([TopicPartition(*spot, offset) for spot, offset in starts.items()])
        while True:
            yield from filter(None, map(_stored, self._messages()))

    def _messages(self) -> list[Message]:
        """What lies ready, or the next one to come: consume(n, timeout) would wait for n or the timeout."""
        first = self._consumer.poll(0.2)
        return [] if first is None else [first, *self._consumer.consume(BATCH, 0)]

    def _offsets(self, asked: Mapping[TopicPartition, OffsetSpec]) -> dict[Spot, int]:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            futures: Any = self._admin.list_offsets(dict(asked), request_timeout=TIMEOUT_S)
            try:
                found = {(spot.topic, spot.partition): future.result() for spot, future in futures.items()}
                return {spot: answer.offset for spot, answer in found.items()}
            except KafkaException as error:
                # a leader that has just changed, or a topic that has just been made
                if not error.args[0].retriable() and error.args[0].code() not in MOVING:
                    raise
                if time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_S)


@contextmanager
def opened(settings: Kafka) -> Iterator[Log]:
    """A reader; a broker that does not answer is one line and exit code 1."""
    log = Log(settings)
    try:
        yield log
    except KafkaException as error:
        raise away(settings, error) from None
    finally:
        log.close()


def away(settings: Kafka, error: Exception) -> Failed:
    """The broker does not answer."""
    mend = "is it running? `millstream context show` tells where this address comes from"
    return Failed(f"Kafka at {settings.bootstrap_servers}: expected an answer, found {error}; {mend}")


def _stored(message: Message) -> Stored | None:
    error = message.error()
    if error is not None:
        if error.code() == KafkaError._PARTITION_EOF:
            return None
        raise KafkaException(error)
    kind, milliseconds = message.timestamp()
    at = datetime.fromtimestamp(0 if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000, UTC)
    pairs: Any = message.headers() or ()
    headers = tuple((name, value if value is not None else b"") for name, value in pairs)
    return Stored(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        at,
        message.key(),
        message.value(),
        headers,
    )
