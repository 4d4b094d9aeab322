"""How a record lies on its topic: key, headers (CloudEvents' Kafka binding, binary mode) and value."""

from datetime import datetime, tzinfo
from functools import lru_cache
from typing import assert_never

import msgspec

from services.contracts import commands, events, ids

Headers = tuple[tuple[str, bytes], ...]


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A record ready to be produced. One of the hot path: a Struct is made several times as fast."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


WAITED = "ms_waited"
"""On a worker's words: how many milliseconds the step had waited for a lane when it began. Only a hint."""


def command(record: commands.Command, value: bytes, waited_s: float | None = None) -> Outgoing:
    """Any record but an event, with the bytes that the codec made of it; `waited_s` becomes WAITED."""
    topic, key, id, time, subject = _address(record)
    trace = ids.traceparent(subject, id) if topic != "definition.state" else None
    headers = _headers(topic, id, time, subject, record.tenant, trace)
    if waited_s is not None:
        headers = (*headers, _pair(WAITED, str(max(0, int(1000 * waited_s)))))
    return Outgoing(topic, key.encode(), value, headers)


def waited_s(headers: Headers) -> float | None:
    """What WAITED says; None: nothing that could be understood."""
    for name, value in reversed(headers):
        if name == WAITED:
            return int(value) / 1000 if value.isdigit() and len(value) < _DIGITS_MAX else None
    return None


def event(record: events.Event, value: bytes, chain: bytes) -> Outgoing:
    """An event; `chain` is the execution's hash chain after these bytes."""
    headers = _headers(
        events.type_of(record),
        record.event_id,
        record.occurred_at,
        record.execution_id,
        record.tenant,
        ids.traceparent(record.execution_id, record.event_id),
    )
    more = (("ms_sequence", str(record.sequence).encode()), ("ms_chain", chain.hex().encode()))
    return Outgoing("execution.events", record.execution_id.encode(), value, headers + more)


def _address(record: commands.Command) -> tuple[str, str, str, datetime, str]:
    """Topic, key, id, instant and subject of a record. The id is a function of the record's cause."""
    match record:
        case commands.JobRequested():
            id = record.execution_id
            return "job.requested", id, id, record.requested_at, id
        case commands.StepRequested():
            id = record.attempt_id
            queue = "step.requested.long" if record.kind in commands.LONG_KINDS else "step.requested"
            return queue, id, id, record.requested_at, record.execution_id
        case commands.StepReport():
            id = f"{record.take_id}-{record.kind}-{record.files}-{int(record.reported_at.timestamp() * 1000)}"
            return "step.progressed", record.execution_id, id, record.reported_at, record.execution_id
        case commands.StepOutcome():
            return (
                "step.completed",
                record.execution_id,
                record.take_id,
                record.finished_at,
                record.execution_id,
            )
        case commands.DefinitionState():
            return (
                "definition.state",
                record.key,
                f"{record.key}@{record.revision}",
                record.changed_at,
                record.key,
            )
        case commands.ExecutionCommand():
            id = record.command_id
            return "execution.commands", record.execution_id, id, record.requested_at, record.execution_id
        case commands.StepControl():
            named = record.take_id or record.attempt_id or record.execution_id
            id = f"{record.kind}-{named}"
            return "step.control", record.execution_id, id, record.issued_at, record.execution_id
    assert_never(record)


def _headers(type_: str, id: str, time: datetime, subject: str, tenant: str, trace: str | None) -> Headers:
    pairs = (
        _VERSION,
        _pair("ce_type", type_),
        _SOURCE,
        ("ce_id", id.encode()),
        _instant(time, time.tzinfo),
        ("ce_subject", subject.encode()),
        _CONTENT,
        _pair("ms_tenant", tenant),
    )
    return (*pairs, ("traceparent", trace.encode())) if trace else pairs


@lru_cache(1000)
def _pair(name: str, text: str) -> tuple[str, bytes]:
    """Pairs of which there are few are made once."""
    return name, text.encode()


@lru_cache(1000)
def _instant(time: datetime, zone: tzinfo | None) -> tuple[str, bytes]:
    """Likewise: a batch has one instant. Equal instants of two zones are written differently."""
    return "ce_time", time.isoformat().encode()


_DIGITS_MAX = 10
_VERSION = _pair("ce_specversion", "1.0")
_SOURCE = _pair("ce_source", "/millstream")
_CONTENT = _pair("content-type", "application/avro")
