"""A queue of steps: one topic read as a member of one group, each record held until it is settled."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
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
from services.runtime import membership, telemetry
from services.runtime.entropy import LocalClock
from services.runtime.kafka import consumer_config
from services.runtime.membership import PATIENCE, OutOfGroup, Patience, Unread, Verdict, Vigil
from services.runtime.processor.kafka import consumed
from services.runtime.processor.letters import dead_letter
from services.runtime.processor.types import Poison
from services.runtime.settings import Kafka
from services.runtime.topics import Topics

BATCH = 500
MAX_IN_FLIGHT = 256
COMMIT_S = 0.1
STATISTICS_MS = 1000
OFFSETS_TIMEOUT_S = 2.0
SILENT_S = 10.0
"""A broker that has answered nothing for so long is away."""
UNHEARD_S, UNHEARD_MAX_S = 12.0, 300.0
"""A client that has heard nothing of a partition for so long is replaced; doubled each time in a row."""
CLOCKS_DIFFER_S = 1.0
"""How long a record has lain in the topic, two machines' clocks tell: less than this says nothing."""
SERVICE = "executor-worker"

log = telemetry.get_logger()

Lost = Callable[[Iterable[int]], None]


class Queue:
    """For one thread, but for `settle`."""

    def __init__(
        self,
        kafka: Kafka,
        topic: str,
        group: str,
        worker: str,
        codec: Codec,
        lost: Lost,
        patience: Patience = PATIENCE,
    ) -> None:
        """`lost` is told of partitions that are another's from now on."""
        self.group = group
        self.joined = False
        self.heard_at = time.monotonic()
        """When a broker last answered anything."""
        self.partitions: dict[int, Partition] = {}
        self._topic = topic
        self._codec = codec
        self._lost = lost
        self._subscribed = self._is_full = False
        self._kafka, self._worker, self._patience = kafka, worker, patience
        self._incremental = kafka.group_protocol == "consumer"
        self._answers = self._clients = 0
        self._read_to: dict[int, int] = {}
        self._unread: Unread[int] = Unread()
        self._checked_at = self._unheard_at = time.monotonic()
        self._unheard_s = UNHEARD_S
        self._settled: deque[Place] = deque()
        self._committed_at = time.monotonic()
        self._topics = Topics(kafka, f"{worker}-ends", OFFSETS_TIMEOUT_S)
        self._consumer = self._client()
        self.vigil = Vigil(group, self._ask_listed, time.monotonic(), patience)

    def join(self) -> None:
        """Be a member of the group."""
        if not self._subscribed:
            self._subscribed = True
            self.vigil.begin(time.monotonic())
            self._consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def leave(self) -> None:
        """Give every partition to the others; what was not settled comes to them, or to us when we join."""
        if self._subscribed:
            self._subscribed = self.joined = False
            self.commit()
            self._consumer.unsubscribe()

    def stay_member(self) -> None:
        """Replace a client that is out of the group for too long; raises OutOfGroup if that did not help."""
        if not self._subscribed:
            return
        now = time.monotonic()
        if self._hears(now):
            self._unheard_at, self._unheard_s = now, UNHEARD_S
        elif now - self._unheard_at > self._unheard_s:
            log.warning("rejoins", reason=f"nothing was heard of some partitions of {self._topic}")
            self._unheard_at, self._unheard_s = now, min(2 * self._unheard_s, UNHEARD_MAX_S)
            self._rejoin()
            return
        if now - self._checked_at >= self._patience.ask_s:
            self._checked_at = now
            reading = [part.number for part in self.partitions.values() if not (part.waiting or part.paused)]
            self._unread.note(self._ends(reading), self._position, now)
        match self.vigil.look(now, self._unread.age_s(self._position, now)):
            case Verdict.REJOIN:
                log.warning("rejoins", reason=self.vigil.reason)
                self._rejoin()
            case Verdict.END:
                raise OutOfGroup(f"{self.vigil.reason}, nor did a new client help; the process ends")
            case Verdict.STAY:
                pass

    def read(self, timeout_s: float) -> None:
        """Serve the group and read what has come; waits for the first record only."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return
        for message in [first, *self._consumer.consume(BATCH - 1, 0)]:
            if (error := message.error()) is None:
                self._read_to[message.partition() or 0] = (message.offset() or 0) + 1
                self._came(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._read_to[message.partition() or 0] = message.offset() or 0
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
        self._is_full = self.held() >= BATCH
        if self._is_full:
            self._unread.forget()
        return not self._is_full

    def _pause(self, part: Partition, wanted: bool) -> None:
        if wanted != part.paused:
            spot = [TopicPartition(self._topic, part.number)]
            (self._consumer.pause if wanted else self._consumer.resume)(spot)
            part.paused = wanted

    def close(self) -> None:
        """Commit and leave the group."""
        self.commit()
        self.joined = False
        membership.leave(self._consumer)
        self._topics.close()

    def _client(self) -> Consumer:
        """Each has a name of its own: a former one may be listed until its session ends."""
        self._clients += 1
        self._name = f"{self._worker}-{self._clients}"
        config = consumer_config(self._kafka, self._name, self.group) | {
            "auto.offset.reset": "earliest",  # a queue is read from its beginning; takes are fenced
            "enable.partition.eof": True,
            "statistics.interval.ms": STATISTICS_MS,
        }
        return Consumer({**config, "stats_cb": self._on_statistics, "error_cb": self._on_error})

    def _hears(self, now: float) -> bool:
        """Whether each partition has shown a record or its end, or there is a reason why not.

        A client that has asked for the committed offsets at the wrong moment (the coordinator moved, or stood
        still) never asks again: it stays a member in good standing and fetches nothing.
        """
        is_silent = now - self.heard_at > SILENT_S
        unheard = (part for part in self.partitions.values() if part.number not in self._read_to)
        return is_silent or self._is_full or all(part.paused for part in unheard)

    def _position(self, number: int) -> int:
        """The offset that reading has come to; -1 while nothing was heard of the partition."""
        return self._read_to.get(number, -1)

    def _ask_listed(self) -> "Future[bool]":
        return membership.ask(self._kafka, self.group, self._name)

    def _rejoin(self) -> None:
        """What was not settled comes again, to whoever gets the partitions."""
        old, self._consumer = self._consumer, self._client()
        lost = sorted(self.partitions)
        self.partitions.clear()
        self._read_to, self._checked_at = {}, time.monotonic()
        self._unread.forget()
        self._lost(lost)
        membership.leave(old)
        self._subscribed = self.joined = False
        self.join()

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
            work = dead_letter(SERVICE, record, Poison("undecodable", str(error)))
        partition.came(Waiting(offset, work, time.monotonic() - _lain_s(message)))

    def _on_assign(self, consumer: Consumer, spots: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            return
        numbers = sorted(spot.partition for spot in spots)
        ends = self._ends(numbers)
        self._read_to = {number: at for number, at in self._read_to.items() if number not in numbers}
        self._unread.forget()
        for number in numbers:
            self.partitions[number] = Partition(number, MAX_IN_FLIGHT, ends.get(number))
        self.joined = True
        log.info("assigned", topic=self._topic, partitions=numbers)

    def _on_revoke(self, consumer: Consumer, spots: list[TopicPartition]) -> None:
        if consumer is not self._consumer:  # given up, and only now it leaves
            return
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

    def _ends(self, numbers: Iterable[int]) -> dict[int, int]:
        """Where the partitions end now; nothing for those the broker does not tell of."""
        asked = [(self._topic, number) for number in numbers]
        try:
            ends = self._topics.offsets(asked, OffsetSpec.latest())
        except KafkaException as error:
            log.warning("ends_unknown", error=str(error))
            return {}
        return {number: end for (_, number), end in ends.items()}

    def _on_statistics(self, text: str) -> None:
        told = json.loads(text)
        if told["client_id"] != self._name:
            return
        if told["rx"] != self._answers:
            self._answers, self.heard_at = told["rx"], time.monotonic()
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
