"""A queue of steps: one topic read as a member of one group, each record held until it is settled."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
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

from services.contracts.codec import Codec
from services.contracts.errors import Undecodable
from services.executor.work.partition import Partition, Place, Waiting
from services.runtime import telemetry
from services.runtime.entropy import LocalClock
from services.runtime.kafka import Admin, consumer_config
from services.runtime.processor.batch import dead_letter
from services.runtime.processor.kafka import consumed
from services.runtime.processor.types import Poison
from services.runtime.settings import Kafka

BATCH = 500
MAX_IN_FLIGHT = 256
COMMIT_S = 0.1
STATISTICS_MS = 1000
OFFSETS_TIMEOUT_S = 2.0
CLOCKS_DIFFER_S = 1.0
"""How long a record has lain in the topic, two machines' clocks tell: less than this says nothing."""
SERVICE = "executor-worker"

log = telemetry.get_logger()

Lost = Callable[[Iterable[int]], None]


class Queue:
    """For one thread, but for `settle`."""

    def __init__(self, kafka: Kafka, topic: str, group: str, worker: str, codec: Codec, lost: Lost) -> None:
        """`lost` is told of partitions that are another's from now on."""
        self.group = group
        self.joined = False
        self.reachable = True
        self.partitions: dict[int, Partition] = {}
        self._topic = topic
        self._codec = codec
        self._lost = lost
        self._subscribed = False
        self._incremental = kafka.group_protocol == "consumer"
        self._settled: deque[Place] = deque()
        self._committed_at = time.monotonic()
        config = consumer_config(kafka, worker, group) | {
            "auto.offset.reset": "earliest",  # a queue is read from its beginning; takes are fenced
            "statistics.interval.ms": STATISTICS_MS,
        }
        self._admin = Admin(kafka, f"{worker}-ends")
        self._consumer = Consumer({**config, "stats_cb": self._on_statistics, "error_cb": self._on_error})

    def join(self) -> None:
        """Be a member of the group."""
        if not self._subscribed:
            self._subscribed = True
            self._consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def leave(self) -> None:
        """Give every partition to the others; what was not settled comes to them, or to us when we join."""
        if self._subscribed:
            self._subscribed = self.joined = False
            self.commit()
            self._consumer.unsubscribe()

    def read(self, timeout_s: float) -> None:
        """Serve the group and read what has come; waits for the first record only."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return
        for message in [first, *self._consumer.consume(BATCH - 1, 0)]:
            if (error := message.error()) is None:
                self._came(message)
            elif error.fatal():
                raise KafkaException(error)
            else:
                log.warning("consumer_error", error=error.str())

    def settle(self, place: Place) -> None:
        """The record is done with, as far as this queue is concerned. Any thread may call."""
        self._settled.append(place)

    def commit_if_due(self) -> None:
        """Commit every COMMIT_S, and at once where it makes room."""
        self._note_settled()
        full = any(part.room <= 0 and part.to_commit is not None for part in self.partitions.values())
        if full or time.monotonic() - self._committed_at >= COMMIT_S:
            self.commit()

    def commit(self) -> None:
        """Commit each partition's settled prefix and wait for the answer."""
        self._note_settled()
        self._committed_at = time.monotonic()
        moved = [partition for partition in self.partitions.values() if partition.to_commit is not None]
        if not moved:
            return
        offsets = [TopicPartition(self._topic, part.number, part.to_commit or 0) for part in moved]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # In a rebalance the generation is no longer valid. The records may come again, to us or to
            # others; their takes will not own the attempts.
            log.warning("commit_refused", error=error.args[0].str())
            return
        for partition in moved:
            partition.committed()

    def held(self) -> int:
        """How many records wait to be taken, but for those of partitions that are paused."""
        return sum(len(part.waiting) for part in self.partitions.values() if not part.paused)

    def pace(self, stuck: bool) -> bool:
        """Whether there is room to read, once what blocks the rest is paused.

        Blocked is a partition whose records wait in vain, each one when `stuck`. A pause throws away what was
        fetched ahead, so it comes only when it must and lasts until nothing waits any more.
        """
        if self.held() >= BATCH or any(part.paused for part in self.partitions.values()):
            for part in self.partitions.values():
                self._pause(part, bool(part.waiting) and (part.paused or stuck or part.room <= 0))
        return self.held() < BATCH

    def _pause(self, part: Partition, wanted: bool) -> None:
        if wanted != part.paused:
            spot = [TopicPartition(self._topic, part.number)]
            (self._consumer.pause if wanted else self._consumer.resume)(spot)
            part.paused = wanted

    def close(self) -> None:
        """Commit and leave the group."""
        self.commit()
        self.joined = False
        self._consumer.close()
        self._admin.close()

    def _note_settled(self) -> None:
        while self._settled:
            place = self._settled.popleft()
            if (partition := self.partitions.get(place.partition)) is not None:
                partition.settle(place.offset)

    def _came(self, message: Message) -> None:
        number, offset = message.partition() or 0, message.offset() or 0
        partition = self.partitions.get(number)
        if partition is None:
            return  # taken from us in this very call
        work: Any
        try:
            work = self._codec.decode(self._topic, message.value())
        except Undecodable as error:
            record = consumed(message)
            log.error("undecodable", origin=record.address, error=str(error))
            work = dead_letter(SERVICE, record, Poison("undecodable", str(error)))
        partition.came(Waiting(offset, work, time.monotonic() - _lain_s(message)))

    def _on_assign(self, _: Consumer, spots: list[TopicPartition]) -> None:
        numbers = sorted(spot.partition for spot in spots)
        ends = self._ends(spots)
        for number in numbers:
            self.partitions[number] = Partition(number, MAX_IN_FLIGHT, ends.get(number))
        self.joined = True
        log.info("assigned", topic=self._topic, partitions=numbers)

    def _on_revoke(self, consumer: Consumer, spots: list[TopicPartition]) -> None:
        self.commit()
        lost = sorted(spot.partition for spot in spots)
        # A pause would outlive this assignment and meet the next one.
        consumer.resume([spot for spot in spots if self._paused(spot.partition)])
        for number in lost:
            self.partitions.pop(number, None)
        self._lost(lost)
        log.info("revoked", topic=self._topic, partitions=lost)

    def _paused(self, number: int) -> bool:
        partition = self.partitions.get(number)
        return partition is not None and partition.paused

    def _ends(self, spots: list[TopicPartition]) -> dict[int, int]:
        """Where the partitions end now; nothing for those the broker does not tell of."""
        asked = [TopicPartition(spot.topic, spot.partition) for spot in spots]
        ends: dict[int, int] = {}
        try:
            futures: Any = self._admin.list_offsets(
                dict.fromkeys(asked, OffsetSpec.latest()), request_timeout=OFFSETS_TIMEOUT_S
            )
            for spot, future in futures.items():
                ends[spot.partition] = future.result().offset
        except KafkaException as error:
            log.warning("ends_unknown", error=str(error))
        return ends

    def _on_statistics(self, text: str) -> None:
        told = json.loads(text)
        brokers = told["brokers"].values()
        self.reachable = any(broker["state"] == "UP" and broker["nodeid"] >= 0 for broker in brokers)
        # Under KIP-848 a member for which there is no partition hears of nothing but its coordinator.
        self.joined |= self._subscribed and self._incremental and told["cgrp"]["state"] == "up"

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # every single broker's trouble would be a flood
            log.warning("brokers_down", error=error.str())


def _lain_s(message: Message) -> float:
    """How long at least the record had lain in its topic when it was read."""
    kind, produced_ms = message.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE:
        return 0.0
    return max(0.0, LocalClock().now().timestamp() - produced_ms / 1000 - CLOCKS_DIFFER_S)
