"""A broker in memory: topics with partitions, one consumer group, at least once like the real one."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from services.contracts.envelope import Outgoing
from services.contracts.partition import partition_of
from services.runtime.processor.letters import size
from services.runtime.processor.log import Spot
from services.runtime.processor.types import Backpressure, Halted, Input, Unsendable

RECORD_BYTES_MAX = 2_000_000


@dataclass(slots=True)
class Topic:
    """One topic; recreating it gives it another id and no records."""

    id: str
    partitions: list[list[Input]]


@dataclass(slots=True)
class Broker:
    """Topics and the members of the one group, which share the partition indexes evenly."""

    partitions: int = 12
    topics: dict[str, Topic] = field(default_factory=dict)
    members: list["MemoryLog"] = field(default_factory=list)
    away: bool = False
    record_bytes_max: dict[str, int] = field(default_factory=dict)
    """Of the topics that take less than RECORD_BYTES_MAX."""
    forbidden: set[str] = field(default_factory=set)
    """Topics that nobody may write to."""
    recreated: int = 0

    def create(self, *names: str) -> None:
        """Create topics, or recreate them empty under another id."""
        for name in names:
            self.recreated += 1
            self.topics[name] = Topic(f"{name}#{self.recreated}", [[] for _ in range(self.partitions)])

    def append(self, record: Outgoing, partition: int | None = None) -> Input:
        """Append one record; the partition goes by the key unless given."""
        index = partition_of(record.key or b"", self.partitions) if partition is None else partition
        place = self.topics[record.topic].partitions[index]
        stored = Input(record.topic, index, len(place), record.key, record.value, record.headers)
        place.append(stored)
        return stored

    def records(self, topic: str) -> list[Input]:
        """Every record of a topic, by partition and offset."""
        return [record for partition in self.topics[topic].partitions for record in partition]

    def rebalance(self) -> None:
        """Share the indexes among the members by range."""
        for position, member in enumerate(self.members):
            start = position * self.partitions // len(self.members)
            end = (position + 1) * self.partitions // len(self.members)
            member.assign({(topic, index) for topic in member.topics for index in range(start, end)})


class MemoryLog:
    """One member's view. See Log."""

    def __init__(self, broker: Broker) -> None:
        """`broker` is shared by all members."""
        self.broker = broker
        self.topics: tuple[str, ...] = ()
        self.assigned: frozenset[Spot] = frozenset()
        self.generation = 0
        self._positions: dict[Spot, int] = {}
        self._refused = False
        self._unsendable: list[tuple[Outgoing, str]] = []
        self._halted = ""

    def join(self, topics: Sequence[str]) -> None:
        """Become a member; everybody is assigned anew."""
        if self in self.broker.members:
            return
        self.topics = tuple(topics)
        self.broker.members.append(self)
        self.broker.rebalance()

    def assign(self, spots: Iterable[Spot]) -> None:
        """What the broker gives this member from now on."""
        self.assigned = frozenset(spots)
        self.generation += 1
        self._positions = {}

    def read_from(self, offsets: Mapping[Spot, int]) -> None:
        """Read exactly these."""
        self._positions = dict(offsets)

    def poll(self, timeout_s: float, records_max: int, bytes_max: int) -> list[Input]:
        """What lies ready, never waiting."""
        found: list[Input] = []
        if self.broker.away:
            return found
        size = 0
        for (topic, index), position in list(self._positions.items()):
            for record in self.broker.topics[topic].partitions[index][position:]:
                if len(found) >= records_max or size >= bytes_max:
                    return found
                found.append(record)
                size += len(record.value or b"")
                self._positions[topic, index] = record.offset + 1
        return found

    def idle(self, timeout_s: float) -> None:
        """Nothing to serve."""

    def reached(self, spot: Spot) -> int:
        """Positions alone tell."""
        return 0

    def lost_position(self) -> frozenset[Spot]:
        """A log in memory is never truncated."""
        return frozenset()

    def bounds(self, spots: Iterable[Spot]) -> Mapping[Spot, tuple[int, int]]:
        """First and end offsets."""
        self._check()
        return {
            (topic, index): (0, len(self.broker.topics[topic].partitions[index])) for topic, index in spots
        }

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """Ids of the topics that exist."""
        self._check()
        return {name: self.broker.topics[name].id for name in topics if name in self.broker.topics}

    def produce(self, records: Sequence[Outgoing]) -> None:
        """Append at once; what the broker refuses shows at the next settling."""
        if self.broker.away:
            self._refused = bool(records)
            return
        for record in records:
            topic = record.topic
            if topic not in self.broker.topics or topic in self.broker.forbidden:
                self._halted = f"{topic}: expected the broker to take records, found none or no right"
            elif size(record) > (most := self.broker.record_bytes_max.get(topic, RECORD_BYTES_MAX)):
                self._unsendable.append((record, f"{size(record)} bytes, at most {most}"))
            else:
                self.broker.append(record)

    def settle(self, timeout_s: float) -> bool:
        """Everything is acknowledged that was not refused."""
        if self._refused:
            self._refused = False
            raise Backpressure("the broker refused records: it is away")
        halted, self._halted = self._halted, ""
        unsendable, self._unsendable = self._unsendable, []
        if halted:
            raise Halted(halted)
        if unsendable:
            raise Unsendable(unsendable)
        return True

    @property
    def silence_s(self) -> float:
        """Memory answers at once."""
        return 0.0

    def ask_listed(self) -> "Future[bool]":
        """Whether the broker counts this member; answered when it is asked."""
        answer: Future[bool] = Future()
        if self.broker.away:
            answer.set_exception(Backpressure("the broker is away"))
        else:
            answer.set_result(self in self.broker.members)
        return answer

    def rejoin(self) -> None:
        """Leave and join again."""
        self.close()
        self.join(self.topics)

    def note_offsets(self, offsets: Mapping[Spot, int]) -> None:
        """Nobody looks at lag here."""

    def close(self) -> None:
        """Leave the group."""
        if self in self.broker.members:
            self.broker.members.remove(self)
            self.broker.rebalance()

    def _check(self) -> None:
        if self.broker.away:
            raise Backpressure("the broker is away")
