"""The loop's log on Kafka: a group member with range assignment, and an idempotent producer."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from services.contracts.envelope import Outgoing
from services.runtime import kafka, membership, refusals, telemetry
from services.runtime.processor.log import Spot
from services.runtime.processor.types import Backpressure, Halted, Input, Unsendable
from services.runtime.refusals import Refusal
from services.runtime.settings import Kafka
from services.runtime.topics import Topics

log = telemetry.get_logger()

REQUEST_TIMEOUT_S = 5.0
STATISTICS_MS = 1000
SMALL_BATCH = 100
"""Up to so many records are sent at once and their answer awaited for a moment: somebody waits for them."""
SMALL_BATCH_S = 0.01
LINGER_MS = 2
"""Larger batches come in one burst, which takes fewer requests when it lingers."""


class KafkaLog:
    """See Log. Not safe for threads: the loop's thread alone calls it."""

    def __init__(self, settings: Kafka, name: str, client_id: str) -> None:
        """`name` gives the group `millstream-<name>`; `client_id` is unique per process."""
        self._settings, self._group, self._client_id = settings, f"millstream-{name}", client_id
        self._clients = 0
        self._incremental = settings.group_protocol == "consumer"
        self._consumer = self._client()
        # Failures alone are told: an acknowledgement is a call per record that changes nothing.
        bursts: kafka.Config = {"delivery.report.only.error": True, "linger.ms": LINGER_MS}
        self._producer = Producer(kafka.producer_config(settings, client_id) | bursts)
        self._asked = Topics(settings, f"{client_id}-admin", REQUEST_TIMEOUT_S)
        self._assigned: frozenset[Spot] = frozenset()
        self._generation = 0
        self._reading: frozenset[Spot] = frozenset()
        self._paused = False
        self._reached: dict[Spot, int] = {}
        self._lost: set[Spot] = set()
        self._refused: list[tuple[Outgoing, KafkaError]] = []
        self._fatal: KafkaError | None = None
        self._topics: Sequence[str] = ()
        self._answers, self._heard_at = 0, time.monotonic()

    def join(self, topics: Sequence[str]) -> None:
        """Subscribe; nothing is read before `read_from`."""
        self._topics = topics
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    @property
    def assigned(self) -> frozenset[Spot]:
        """What the group gives us now."""
        return self._assigned

    @property
    def generation(self) -> int:
        """Grows with every change of `assigned`."""
        return self._generation

    def read_from(self, offsets: Mapping[Spot, int]) -> None:
        """Replace what is read; reading starts at the given offsets, unpaused."""
        self._resume()
        wanted = [TopicPartition(topic, part, offset) for (topic, part), offset in offsets.items()]
        if self._incremental:
            # Whatever else is assigned stays so, and paused: giving it back is the broker's business.
            self._consumer.resume(wanted)
            self._consumer.incremental_unassign(wanted)
            self._consumer.incremental_assign(wanted)
        else:
            self._consumer.assign(wanted)
        self._reading = frozenset(offsets)
        self._paused = False
        self._reached = {}
        self._lost -= self._reading

    def poll(self, timeout_s: float, records_max: int, bytes_max: int) -> list[Input]:
        """One blocking poll, then whatever lies ready: consume(n, timeout) would wait for the timeout."""
        self._resume()
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages = [first]
        size = len(first)
        while len(messages) < records_max and size < bytes_max:
            more = self._consumer.consume(min(500, records_max - len(messages)), 0)
            if not more:
                break
            messages += more
            size += sum(len(message) for message in more)
        return [record for message in messages if (record := self._input(message)) is not None]

    def idle(self, timeout_s: float) -> None:
        """Serve the group with everything paused; a record that slips through is read again by position."""
        if not self._paused and self._reading:
            self._consumer.pause([TopicPartition(topic, part) for topic, part in self._reading])
            self._paused = True
        message = self._consumer.poll(timeout_s)
        if message is not None and self._input(message) is not None:
            spot = (message.topic() or "", message.partition() or 0)
            if spot in self._reading:  # else it was taken from us while we looked
                self._consumer.seek(TopicPartition(*spot, message.offset() or 0))

    def reached(self, spot: Spot) -> int:
        """The offset at which reading last met the end of the spot."""
        return self._reached.get(spot, 0)

    def lost_position(self) -> frozenset[Spot]:
        """Spots for which the broker has no such offset."""
        lost, self._lost = frozenset(self._lost), set()
        return lost

    def bounds(self, spots: Iterable[Spot]) -> Mapping[Spot, tuple[int, int]]:
        """Two requests for all spots."""
        asked = [*spots]
        try:
            first = self._asked.offsets(asked, OffsetSpec.earliest())
            end = self._asked.offsets(asked, OffsetSpec.latest())
        except KafkaException as error:
            raise Backpressure(f"broker: {error}") from error
        return {spot: (first[spot], end[spot]) for spot in first}

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """UUIDs by describe_topics; a topic that is missing is left out."""
        try:
            return {name: facts.uuid for name, facts in self._asked.facts(topics).items()}
        except KafkaException as error:
            raise Backpressure(f"broker: {error}") from error

    def produce(self, records: Sequence[Outgoing]) -> None:
        """Queue records; a full queue is served until it has room."""
        for record in records:
            while True:
                try:
                    self._producer.produce(
                        record.topic,
                        value=record.value,
                        key=record.key,
                        headers=list(record.headers),
                        on_delivery=partial(self._on_delivery, record),
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
                except KafkaException as error:
                    self._refuse(record, error.args[0])
                    break
        if len(records) <= SMALL_BATCH:
            self._producer.flush(SMALL_BATCH_S)  # a flush does not linger
        else:
            self._producer.poll(0)

    def settle(self, timeout_s: float) -> bool:
        """Wait for acknowledgements."""
        left = self._producer.flush(timeout_s)
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        if left:
            return False
        refused, self._refused = self._refused, []
        for meaning in (Refusal.TOPIC, Refusal.AGAIN, Refusal.RECORD):
            found = [(record, error) for record, error in refused if refusals.meaning(error) is meaning]
            if found:
                _raise(meaning, found)
        return True

    @property
    def silence_s(self) -> float:
        """By the client's statistics; a client that is stuck makes none."""
        return time.monotonic() - self._heard_at

    def ask_listed(self) -> "Future[bool]":
        """One request by a client that shares nothing with the one that reads."""
        return membership.ask(self._settings, self._group, self._name)

    def rejoin(self) -> None:
        """Everything is assigned anew, to a member of another name."""
        old, self._consumer = self._consumer, self._client()
        membership.leave(old)
        self._assigned = self._reading = frozenset()
        self._paused = False
        self._reached = {}
        self._generation = 0
        self.join(self._topics)

    def note_offsets(self, offsets: Mapping[Spot, int]) -> None:
        """An asynchronous commit; lag tools read it, we never do."""
        spots = [TopicPartition(topic, part, offset) for (topic, part), offset in offsets.items()]
        if not spots:
            return
        try:
            self._consumer.commit(offsets=spots, asynchronous=True)
        except KafkaException as error:
            log.debug("offsets_not_noted", error=str(error))

    def close(self) -> None:
        """Leave the group at once, so that the next owner need not wait for the session."""
        self._producer.purge()
        membership.leave(self._consumer)
        self._asked.close()

    def _resume(self) -> None:
        """A pause outlives the assignment that it was made in; it must end with it."""
        if self._paused:
            self._consumer.resume([TopicPartition(topic, part) for topic, part in self._reading])
            self._paused = False

    def _client(self) -> Consumer:
        """Each has a name of its own: a former one may be listed until its session ends."""
        self._clients += 1
        self._name = f"{self._client_id}-{self._clients}"
        config = kafka.consumer_config(self._settings, self._name, self._group)
        # The resume point is PostgreSQL's, so an end that is reached without a record must be seen (EOF).
        config |= {"enable.partition.eof": True, "message.max.bytes": 12_000_000}
        config |= {"statistics.interval.ms": STATISTICS_MS}
        return Consumer({**config, "stats_cb": self._on_statistics})

    def _on_assign(self, consumer: Consumer, spots: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            return
        # Nothing is read before the index has been acquired: `read_from` names the offsets.
        if self._incremental:
            for spot in spots:
                spot.offset = OFFSET_BEGINNING
            consumer.incremental_assign(spots)
            consumer.pause(spots)
            self._assigned |= _spots(spots)
        else:
            consumer.assign([])
            self._reading = frozenset()
            self._assigned = _spots(spots)
        self._generation += 1

    def _on_revoke(self, consumer: Consumer, spots: list[TopicPartition]) -> None:
        if consumer is not self._consumer:  # given up, and only now it leaves
            return
        self._resume()
        if self._incremental:
            consumer.resume(spots)  # paused since they came, if they were never read
            consumer.incremental_unassign(spots)
            self._assigned -= _spots(spots)
            self._reading -= _spots(spots)
        else:
            consumer.unassign()
            self._reading = self._assigned = frozenset()
        self._generation += 1

    def _on_statistics(self, text: str) -> None:
        told = json.loads(text)
        if told["client_id"] != self._name:
            return
        if told["rx"] != self._answers:
            self._answers, self._heard_at = told["rx"], time.monotonic()
        # Under KIP-848 a member for which there is no partition hears of nothing but its coordinator.
        if self._incremental and self._generation == 0 and told["cgrp"]["state"] == "up":
            self._generation = 1

    def _on_delivery(self, record: Outgoing, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._refuse(record, error)

    def _refuse(self, record: Outgoing, error: KafkaError) -> None:
        """A producer in a fatal state acknowledges nothing any more: only a new process helps."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = error
        refusals.count(record.topic, error)
        self._refused.append((record, error))

    def _input(self, message: Message) -> Input | None:
        error = message.error()
        if error is None:
            return consumed(message)
        topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        match error.code():
            case KafkaError._PARTITION_EOF:
                self._reached[topic, partition] = offset
            case KafkaError._AUTO_OFFSET_RESET | KafkaError.OFFSET_OUT_OF_RANGE:
                self._lost.add((topic, partition))
            case _:
                log.warning("consumer_error", topic=topic, partition=partition, error=error.str())
        return None


def _raise(meaning: Refusal, refused: Sequence[tuple[Outgoing, KafkaError]]) -> None:
    """What settling the records came to; all of them mean the same."""
    record, error = refused[0]
    match meaning:
        case Refusal.TOPIC:
            raise Halted(refusals.advice(record.topic, error))
        case Refusal.AGAIN:
            raise Backpressure(f"broker refused {len(refused)} records: {error.str()}")
        case Refusal.RECORD:
            raise Unsendable([(record, error.str()) for record, error in refused])


def _spots(partitions: list[TopicPartition]) -> frozenset[Spot]:
    return frozenset((spot.topic, spot.partition) for spot in partitions)


def consumed(message: Message) -> Input:
    """A record as it came; the message is no error."""
    pairs: Any = message.headers() or ()
    headers = tuple([pair if pair[1].__class__ is bytes else _bytes(*pair) for pair in pairs])
    topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
    return Input(topic, partition, offset, message.key(), message.value(), headers)


def _bytes(name: str, value: Any) -> tuple[str, bytes]:
    return name, b"" if value is None else str(value).encode()
