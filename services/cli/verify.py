"""Reads the log of events, partition by partition, and says whether it is the one that was written."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from services.cli.chain import Entry, Finding, Kind, Story
from services.cli.log import Log, Spot, Stored
from services.contracts import envelope, events, ids
from services.contracts.codec import Codec
from services.contracts.errors import Undecodable
from services.contracts.events import Event
from services.contracts.partition import partition_of

TOPIC = "execution.events"
CHAIN = "ms_chain"
# Written by the producer and not part of the value: the chain does not cover them.
BOUND_HEADERS = ("ce_id", "ce_type", "ce_subject", "ms_sequence", "ms_tenant")


@dataclass(slots=True)
class Report:
    """What was read and what was found."""

    topic: str
    partitions: int = 0
    events: int = 0
    executions: int = 0
    open: int = 0
    repeated: int = 0
    findings: list[Finding] = field(default_factory=list)


def verify(
    log: Log, codec: Codec, topic: str, execution_id: str | None, say: Callable[[str], None]
) -> Report:
    """Read from the beginning to where the log ends now. Holds about 200 bytes per event of one partition.

    `say` gets a line per partition. Raises Failed and KafkaException.
    """
    count = log.partitions(topic)
    report = Report(topic)
    wanted = range(count) if execution_id is None else [partition_of(execution_id.encode(), count)]
    for index in wanted:
        report.partitions += 1
        say(f"{topic}/{index}: {report.events:,} events so far")
        _partition(log, codec, report, (topic, index), count, execution_id)
    return report


def _partition(
    log: Log, codec: Codec, report: Report, spot: Spot, count: int, execution_id: str | None
) -> None:
    stories: dict[str, Story] = {}
    for record in log.read(log.bounds([spot])):
        key = (record.key or b"").decode("utf-8", "replace")
        if execution_id is not None and key != execution_id:
            continue
        report.events += 1
        entry = _entry(codec, record, key, count)
        if isinstance(entry, Finding):
            report.findings.append(entry)
        else:
            stories.setdefault(key, Story(key)).add(entry)
    for story in stories.values():
        report.executions += 1
        report.open += story.ended is None
        report.repeated += story.repeated
        report.findings.extend(story.findings())


def _entry(codec: Codec, record: Stored, key: str, count: int) -> Entry | Finding:
    """The record as an entry, or why no process of ours can have written it there."""

    def inserted(why: str, event: Event | None = None) -> Finding:
        sequence = None if event is None else event.sequence
        return Finding(Kind.INSERTED, key, sequence, record.address, why)

    try:
        event = codec.decode(TOPIC, record.value)
    except Undecodable as error:
        return inserted(f"it is no event: {error}")
    assert isinstance(event, events.Facts) and record.value is not None
    if event.execution_id != key:
        return inserted(f"it is an event of execution {event.execution_id}, under another key", event)
    if record.partition != (right := partition_of(key.encode(), count)):
        return inserted(f"its key belongs on partition {right}", event)
    try:
        chain = bytes.fromhex(record.header(CHAIN) or "")
    except ValueError:
        chain = b""
    if not chain:
        return inserted(f"it has no header {CHAIN}: no process of ours writes such a record", event)
    return Entry(record.address, event, record.value, chain, tuple(_faults(event, record)))


def _faults(event: Event, record: Stored) -> Iterator[str]:
    """What the record says of itself in two ways that differ."""
    right = dict(envelope.event(event, b"", b"").headers)
    for name in BOUND_HEADERS:
        if (found := record.header(name)) != right[name].decode():
            yield f"header {name}: expected {right[name].decode()}, found {found or 'none'}"
    if event.event_id != (id := ids.event_id(event.execution_id, event.sequence)):
        yield f"event_id: expected {id}, found {event.event_id}"
