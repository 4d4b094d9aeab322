"""Taking work off `step.requested`: claim, wait for the acknowledgement, commit, run; never in another order.

A process that dies after the commit leaves a claim whose lease expires; one that dies before it leaves the
record to the next owner of the partition. Either way the attempt is not lost, and the fence lets only the
first claimed take count.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from services.contracts import envelope
from services.contracts.codec import Codec
from services.contracts.commands import StepRequested
from services.contracts.envelope import Outgoing
from services.contracts.errors import Undecodable
from services.executor.work.lanes import Lanes
from services.executor.work.reporter import Reporter
from services.executor.work.take import TAKE_ID_DIGITS, Take
from services.runtime import crash, entropy, telemetry
from services.runtime.kafka import consumer_config
from services.runtime.settings import Kafka

TOPIC = "step.requested"
GROUP = "millstream-worker"
POLL_S = 0.1
FULL_WAIT_S = 0.25
STATISTICS_MS = 1000
LIVE_S = 60.0
STOP_PATIENCE_S = 5.0
FRESH_S = 10.0
ERROR_CHARS_MAX = 2000

log = telemetry.get_logger()


class Taking:
    """The loop of the main thread, which alone touches the consumer."""

    def __init__(
        self, kafka: Kafka, worker: str, codec: Codec, reporter: Reporter, lanes: Lanes, stop: threading.Event
    ) -> None:
        self._worker = worker
        self._codec = codec
        self._reporter = reporter
        self._lanes = lanes
        self._stop = stop
        # Records that came although we had paused: kept, for the consumer's position is already beyond them.
        self._held: deque[Message] = deque()
        self._paused = False
        self._joined = False
        self._reachable = True
        self._turned_at = self._moved_at = time.monotonic()
        config = consumer_config(kafka, worker, GROUP) | {
            "auto.offset.reset": "earliest",  # a queue is read from its beginning; takes are fenced
            "statistics.interval.ms": STATISTICS_MS,
        }
        self._consumer = Consumer({**config, "stats_cb": self._on_statistics, "error_cb": self._on_error})

    def run(self) -> None:
        """Take until asked to stop, then leave the group."""
        self._consumer.subscribe([TOPIC], on_assign=self._on_assign, on_revoke=self._on_revoke)
        try:
            while not self._stop.is_set():
                self._turned_at = self._moved_at = time.monotonic()
                self._turn()
        finally:
            self._joined = False
            self._consumer.close()

    def live(self) -> tuple[bool, str]:
        """Whether the loop moves; it does while it waits for a broker that is away."""
        age_s = time.monotonic() - self._moved_at
        return age_s < LIVE_S, f"last sign of life {age_s:.1f} s ago"

    def ready(self) -> tuple[bool, str]:
        """Broker reachable, joined (an empty assignment counts), last turn fresh; full counts as ready."""
        if not self._joined:
            return False, f"not joined to group {GROUP} yet"
        if not self._reachable:
            return False, "no broker answers"
        age_s = time.monotonic() - self._turned_at
        return age_s < FRESH_S, f"last turn {age_s:.1f} s ago"

    def _turn(self) -> None:
        if not self._lanes.wait_free(FULL_WAIT_S):
            # Full for longer than a moment: stop fetching, but go on polling, or the group would drop us.
            self._pause()
            self._held.extend(self._polled(1, 0))
            return
        self._resume()
        room = self._lanes.free()
        messages = [self._held.popleft() for _ in range(min(room, len(self._held)))]
        if not messages:
            messages = self._polled(room, POLL_S)
        if messages:
            self._take(messages)

    def _polled(self, count: int, timeout_s: float) -> list[Message]:
        """Up to `count` records: waits for the first, takes the others if they are here already."""
        messages: list[Message] = []
        while len(messages) < count:
            message = self._consumer.poll(0 if messages else timeout_s)
            if message is None:
                break
            if (error := message.error()) is None:
                messages.append(message)
            elif error.fatal():
                raise KafkaException(error)
            else:
                log.warning("consumer_error", error=error.str())
        return messages

    def _take(self, messages: list[Message]) -> None:
        takes: list[Take] = []
        records: list[Outgoing] = []
        for message in messages:
            try:
                request = self._codec.decode(TOPIC, message.value())
            except Undecodable as error:
                log.error("undecodable", origin=_address(message), error=str(error))
                records.append(_dead_letter(message, str(error)))
                continue
            assert isinstance(request, StepRequested)
            if self._lanes.runs(request.attempt_id):
                continue  # it came again because its commit fell into a rebalance; our take still runs
            take = Take(request, entropy.fresh_id()[:TAKE_ID_DIGITS], self._worker)
            takes.append(take)
            records.append(self._reporter.claim(take))
        if not self._reporter.acknowledged(records, self._giving_up):
            return  # stopping while the broker is away: the records stay in the queue
        crash.reach("worker.claim")
        self._commit(messages)
        for take in takes:
            self._lanes.start(take)

    def _giving_up(self) -> bool:
        """A claim that is on its way when we are asked to stop still gets its answer: a claim that nobody
        follows up would hold the attempt for a whole lease."""
        self._moved_at = time.monotonic()
        return self._stop.is_set() and self._moved_at - self._turned_at > STOP_PATIENCE_S

    def _commit(self, messages: list[Message]) -> None:
        """Every record up to these is settled, for they were polled in order and all claims are in."""
        ends: dict[int, int] = {}
        for message in messages:
            ends[message.partition() or 0] = (message.offset() or 0) + 1
        offsets = [TopicPartition(TOPIC, partition, end) for partition, end in ends.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # In a rebalance the generation is no longer valid. The records may come again, to us or to
            # others; their takes will not own the attempts.
            log.warning("commit_refused", error=error.args[0].str())

    def _pause(self) -> None:
        if not self._paused:
            self._consumer.pause(self._consumer.assignment())
            self._paused = True

    def _resume(self) -> None:
        if self._paused and not self._held:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign(partitions)
        if self._paused:
            consumer.pause(partitions)
        self._joined = True
        log.info("assigned", partitions=sorted(partition.partition for partition in partitions))

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        lost = {partition.partition for partition in partitions}
        self._held = deque(message for message in self._held if message.partition() not in lost)
        self._consumer.resume(partitions)  # a pause would outlive this assignment and meet the next one
        self._joined = False
        log.info("revoked", partitions=sorted(lost))

    def _on_statistics(self, text: str) -> None:
        brokers = json.loads(text)["brokers"].values()
        self._reachable = any(broker["state"] == "UP" and broker["nodeid"] >= 0 for broker in brokers)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # every single broker's trouble would be a flood
            log.warning("brokers_down", error=error.str())


def _address(message: Message) -> str:
    return f"{TOPIC}/{message.partition()}/{message.offset()}"


def _dead_letter(message: Message, error: str) -> Outgoing:
    """The record as it came, with the reason in headers."""
    reasons = {
        "ms_reason": "undecodable",
        "ms_error": error[:ERROR_CHARS_MAX],
        "ms_origin": _address(message),
        "ms_service": "executor-worker",
    }
    added = tuple((name, text.encode("utf-8", "replace")) for name, text in reasons.items())
    return Outgoing(f"{TOPIC}.dlq", message.key(), message.value(), _headers(message) + added)


def _headers(message: Message) -> envelope.Headers:
    headers: Sequence[tuple[str, str | bytes | None]] = cast(Any, message.headers()) or []
    return tuple((name, value) for name, value in headers if isinstance(value, bytes))
