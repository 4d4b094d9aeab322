"""Topics read by a plain consumer, and the stories of executions that `execution.events` tells."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from services.contracts import ids
from services.contracts.events import TERMINAL, Event, type_of
from services.runtime import schemas

EVENTS = "execution.events"
METADATA_TIMEOUT_S = 30.0
AFTER_THE_END = frozenset({"command.refused", "hook.completed", "hook.failed"})
"""What may follow a terminal event: answers to those who come late, ends of actions that nobody waits for."""


class Reader:
    """Every partition of one topic from its first record on; `read` goes to what is the end now."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "tests-plain-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        self._topic = topic
        partitions = self._consumer.list_topics(topic, METADATA_TIMEOUT_S).topics[topic].partitions
        self._next = dict.fromkeys(partitions, 0)
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])

    def read(self) -> Iterator[Message]:
        """The records up to the present ends. Raises KafkaException when the broker is away."""
        ends = {
            partition: self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), METADATA_TIMEOUT_S
            )[1]
            for partition in self._next
        }
        while any(self._next[partition] < end for partition, end in ends.items()):
            for message in self._consumer.consume(1000, 0.1):
                if (error := message.error()) is not None:
                    if error.fatal():
                        raise KafkaException(error)
                    continue
                self._next[message.partition() or 0] = (message.offset() or 0) + 1
                yield message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()


@dataclass(slots=True)
class Story:
    """One execution's events by first appearance; `faults` says what breaks an invariant."""

    events: list[Event] = field(default_factory=list)
    repeated: int = 0
    faults: list[str] = field(default_factory=list)
    _values: dict[str, bytes] = field(default_factory=dict)
    _chain: bytes = b""

    @property
    def end(self) -> str | None:
        """The type of the terminal event."""
        return next((type_of(event) for event in self.events if type_of(event) in TERMINAL), None)

    def take(self, event: Event, value: bytes, chain: bytes) -> None:
        """The next record of the log."""
        known = self._values.get(event.event_id)
        if known is not None:
            self.repeated += 1
            if known != value:
                self._fault(event, "the same event id with other bytes")
            return
        self._values[event.event_id] = value
        self._chain = ids.chain(self._chain, value)
        if chain != self._chain.hex().encode():
            self._fault(event, "ms_chain does not verify")
        if event.sequence != len(self.events) + 1:
            self._fault(event, f"expected sequence {len(self.events) + 1}")
        if self.end is not None and type_of(event) not in AFTER_THE_END:
            self._fault(event, f"after {self.end}")
        self.events.append(event)

    def _fault(self, event: Event, what: str) -> None:
        self.faults.append(f"{event.execution_id} #{event.sequence} {type_of(event)}: {what}")


class Stories:
    """All executions, as far as they were read."""

    def __init__(self, bootstrap: str) -> None:
        self.by_id: dict[str, Story] = {}
        self._reader = Reader(bootstrap, EVENTS)

    def read_on(self) -> None:
        """Take in what the log has now."""
        for message in self._reader.read():
            value = message.value() or b""
            event = cast(Event, schemas.codec().decode(EVENTS, value))
            headers: dict[str, Any] = dict(message.headers() or [])
            story = self.by_id.setdefault(event.execution_id, Story())
            story.take(event, value, headers["ms_chain"])

    def unfinished(self, wanted: set[str]) -> set[str]:
        """Those of `wanted`, and of all that exist, that have no terminal event."""
        return {id for id in wanted | self.by_id.keys() if id not in self.by_id or not self.by_id[id].end}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *stack: Any) -> None:
        self._reader.__exit__(*stack)
