"""`step.control` as every worker reads it: all partitions, no group, from the beginning of what is kept."""

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec

from services.contracts.codec import Codec
from services.contracts.commands import StepControl
from services.contracts.errors import Undecodable
from services.executor.work.take import Take
from services.runtime import membership, telemetry
from services.runtime.kafka import consumer_config
from services.runtime.membership import PATIENCE, REQUEST_TIMEOUT_S, OutOfGroup, Unread
from services.runtime.settings import Kafka
from services.runtime.topics import Topics

TOPIC = "step.control"
KEPT = timedelta(hours=25)
"""As long as the topic keeps them at least (schemas/topics.yaml)."""
ORDERS_TRUSTED = timedelta(hours=24)
"""An order that is older may have been revoked by a record that nobody has any more. However long steps may
wait for a worker, it is the order's age that decides."""
POLL_S = 0.5
TOPIC_PATIENCE_S = 5.0
LIVE_S = 60.0

log = telemetry.get_logger()

OnRevoke = Callable[[StepControl], None]


def must_ask(requested_at: datetime, now: datetime) -> bool:
    """Whether the manager has to be asked before an order is begun that was made at this instant."""
    return now - requested_at > ORDERS_TRUSTED


class Control:
    """Reads on a thread of its own. A take is checked with `revoked` before it starts; `on_revoke` is called
    for each revocation as it comes, for the takes that run already."""

    def __init__(self, kafka: Kafka, worker: str, codec: Codec, on_revoke: OnRevoke) -> None:
        self.caught_up = threading.Event()
        """Set once everything that was there at the start has been read."""
        self._codec = codec
        self._on_revoke = on_revoke
        self._revoked: dict[str, str] = {}
        self._order: deque[StepControl] = deque()
        self._partitions: frozenset[int] = frozenset()
        self._behind: set[int] = set()
        self._closing = threading.Event()
        self._read_at = time.monotonic()
        self._read_to: dict[int, int] = {}
        self._unread: Unread[int] = Unread()
        self._checked_at = self._read_at
        self._begun_anew = False
        # It joins no group; librdkafka wants a name for one all the same.
        config = consumer_config(kafka, f"{worker}-control", "millstream-worker-control")
        self._config = {**config, "auto.offset.reset": "earliest", "enable.partition.eof": True}
        self._consumer = Consumer(self._config)
        self._topics = Topics(kafka, f"{worker}-control-ends", REQUEST_TIMEOUT_S)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        self._thread.join(POLL_S * 4)

    def live(self) -> bool:
        """Whether the reader's thread turns."""
        return self._thread.is_alive() and time.monotonic() - self._read_at < LIVE_S

    def revoked(self, take: Take) -> str | None:
        """Why this take must not begin, or None."""
        request = take.request
        for id in (request.execution_id, request.attempt_id, take.take_id):
            if (reason := self._revoked.get(id)) is not None:
                return reason
        return None

    def _run(self) -> None:
        try:
            while not self._closing.is_set() and not self._begin():
                self._read_at = time.monotonic()
            while not self._closing.is_set():
                self._read_at = time.monotonic()
                self._check()
                if (message := self._consumer.poll(POLL_S)) is not None:
                    self._read(message)
        finally:
            membership.leave(self._consumer)
            self._topics.close()

    def _check(self) -> None:
        """A client that reads nothing of what is there gives way to a new one, which reads it all again; if
        that does not help either, the process ends."""
        now = time.monotonic()
        if now - self._checked_at < PATIENCE.ask_s:
            return
        self._checked_at = now
        try:
            spots = [(TOPIC, number) for number in self._partitions]
            found = self._topics.offsets(spots, OffsetSpec.latest())
        except KafkaException:
            self._unread.forget()
            return
        self._unread.note({number: end for (_, number), end in found.items()}, self._position, now)
        if self._unread.age_s(self._position, now) <= PATIENCE.out_s:
            return
        if self._begun_anew:
            raise OutOfGroup(f"{TOPIC} is not read, nor did a new client help; the process ends")
        log.warning("begins_anew", topic=TOPIC)
        old, self._consumer = self._consumer, Consumer(self._config)
        membership.leave(old)
        self._begun_anew, self._read_to = True, {}
        self._unread.forget()
        self._assign()

    def _position(self, number: int) -> int:
        """The offset that reading has come to; -1 while nothing was heard of the partition."""
        return self._read_to.get(number, -1)

    def _begin(self) -> bool:
        """Whether all partitions are known and being read from their beginning."""
        try:
            found = self._consumer.list_topics(TOPIC, TOPIC_PATIENCE_S).topics[TOPIC]
        except KafkaException as error:
            log.warning("control_unreadable", error=str(error))
            return False
        if not found.partitions:
            log.warning(
                "control_unreadable", error=f"topic {TOPIC} is missing; run `millstream topics apply`"
            )
            self._closing.wait(TOPIC_PATIENCE_S)
            return False
        self._partitions = frozenset(found.partitions)
        self._behind = {*self._partitions}
        self._assign()
        return True

    def _assign(self) -> None:
        self._consumer.assign([TopicPartition(TOPIC, index, OFFSET_BEGINNING) for index in self._partitions])

    def _read(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._begun_anew = False
            self._read_to[message.partition() or 0] = (message.offset() or 0) + 1
            self._came(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            self._begun_anew = False
            self._read_to[message.partition() or 0] = message.offset() or 0
            self._behind.discard(message.partition() or 0)
            if not self._behind:
                self.caught_up.set()
        elif error.fatal():
            raise KafkaException(error)
        else:
            log.warning("consumer_error", topic=TOPIC, error=error.str())

    def _came(self, message: Message) -> None:
        try:
            control = self._codec.decode(TOPIC, message.value())
        except Undecodable as error:
            # Every worker reads it, so none buries it: a revocation that nobody understands stops nothing.
            log.error(
                "undecodable", origin=f"{TOPIC}/{message.partition()}/{message.offset()}", error=str(error)
            )
            return
        assert isinstance(control, StepControl)
        self._revoked[_named(control)] = control.reason
        self._order.append(control)
        while self._order[0].issued_at < control.issued_at - KEPT:
            self._revoked.pop(_named(self._order.popleft()), None)
        self._on_revoke(control)


def _named(control: StepControl) -> str:
    return control.take_id or control.attempt_id or control.execution_id
