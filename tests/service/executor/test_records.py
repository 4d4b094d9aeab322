"""What the manager makes of bad records from other services: one table, one expected answer each."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.contracts import envelope, events, ids
from services.contracts.commands import (
    Callback,
    Command,
    DefinitionState,
    File,
    JobRequested,
    StepOutcome,
    StepReport,
    StepRequested,
)
from services.contracts.envelope import Outgoing
from services.executor.manager import INPUTS, OUTPUTS, Manager
from services.runtime.entropy import LocalClock
from services.runtime.memory.log import Broker, MemoryLog
from services.runtime.memory.store import MemoryStore, Tables
from services.runtime.processor.loop import Processor
from services.runtime.schemas import codec
from tests.waiting import until

NOW = LocalClock().now()
TENANT = "acme"
DEAD = tuple(f"{topic}.dlq" for topic in INPUTS)


class House:
    """A manager on the loop, in memory, turned by the test."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.broker.create(*INPUTS, *OUTPUTS, *DEAD)
        store, log = MemoryStore(Tables(LocalClock())), MemoryLog(self.broker)
        self.loop = Processor(Manager(codec()), store, log, OUTPUTS)
        log.join(INPUTS)

    def say(self, record: Command) -> None:
        self.broker.append(envelope.command(record, codec().encode(record)))

    def turn(self) -> None:
        self.loop.turn(threading.Event())
        self.loop.turn(threading.Event())

    def history(self, execution_id: str) -> list[events.Event]:
        found = [codec().decode("execution.events", r.value) for r in self.broker.records("execution.events")]
        return [event for event in found if getattr(event, "execution_id", "") == execution_id]  # type: ignore[misc]

    def names(self, execution_id: str) -> list[str]:
        return [events.type_of(event) for event in self.history(execution_id)]

    def dead(self, topic: str) -> list[tuple[str, str, bytes | None]]:
        """Reason, message and value of each dead letter of a topic."""
        return [
            (headers["ms_reason"].decode(), headers["ms_error"].decode(), record.value)
            for record in self.broker.records(f"{topic}.dlq")
            for headers in [dict(record.headers)]
        ]

    def orders(self) -> list[StepRequested]:
        records = self.broker.records("step.requested")
        return [codec().decode("step.requested", record.value) for record in records]  # type: ignore[misc]


@pytest.fixture
def house() -> House:
    return House()


def job(key: str = "one", **changes: Any) -> JobRequested:
    wanted = JobRequested(
        execution_id=ids.execution_id(TENANT, "shop", "topic", key),
        tenant=TENANT,
        requested_at=NOW,
        created_by="shop",
        name="nightly",
        job_type="noop",
        parameters={"params": {}, "time_range": None},
    )
    return replace(wanted, **changes)


def raw(record: Command, **changes: Any) -> Outgoing:
    return replace(envelope.command(record, codec().encode(record)), **changes)


def wrong_partition(house: House) -> None:
    record = raw(job())
    home = house.broker.append(record).partition
    house.broker.topics["job.requested"].partitions[home].clear()
    house.broker.append(record, (home + 1) % 12)


GOOD = codec().encode(job())
FAR = datetime(9999, 12, 31, tzinfo=UTC)

# What is written to job.requested, the reason of its dead letter, and a part of the message.
REFUSED: dict[str, tuple[Callable[[House], object], str, str]] = {
    "wrong magic": (lambda h: h.broker.append(raw(job(), value=b"\x07" + GOOD[1:])), "undecodable", "0x07"),
    "unknown schema": (
        lambda h: h.broker.append(raw(job(), value=b"\x00\x00\x00\x27\x0f" + GOOD[5:])),
        "undecodable",
        "unknown schema id 9999",
    ),
    "truncated": (
        lambda h: h.broker.append(raw(job(), value=GOOD[:-9])),
        "undecodable",
        "damaged or truncated",
    ),
    "union mismatch": (
        lambda h: h.broker.append(
            raw(job(), value=GOOD.replace(b"noop\x10external", b"noop\x10external\x08"))
        ),
        "undecodable",
        "JobRequested",
    ),
    "record of another topic": (
        lambda h: h.broker.append(raw(job(), value=codec().encode(outcome(order(job()))))),
        "undecodable",
        "does not belong on topic job.requested",
    ),
    "JSON in an Avro topic": (
        lambda h: h.broker.append(raw(job(), value=b'{"execution_id": "x"}')),
        "undecodable",
        "0x7b",
    ),
    "empty": (lambda h: h.broker.append(raw(job(), value=b"")), "undecodable", "empty"),
    "tombstone": (lambda h: h.broker.append(raw(job(), value=None)), "undecodable", "empty"),
    "10 MB": (
        lambda h: h.say(job(parameters={"params": {"x": "y" * 10_000_000}})),
        "too_large",
        "expected at most 262144 bytes",
    ),
    "key of another execution": (
        lambda h: h.broker.append(raw(job(), key=b"0" * 40)),
        "key_mismatch",
        "the record's key is not its execution id",
    ),
    "no key": (lambda h: h.broker.append(raw(job(), key=None)), "key_mismatch", "use the id as the key"),
    "id of another form": (lambda h: h.say(job(execution_id="42")), "bad_id", "40 hex digits"),
    "written by another partitioner": (wrong_partition, "wrong_partition", "partitioner=murmur2_random"),
    "year 9999": (lambda h: h.say(job(requested_at=FAR)), "bad_time", "at most a day ahead"),
    "a month old": (lambda h: h.say(job(requested_at=NOW - timedelta(days=31))), "too_old", "30 days"),
    "plain text where sealed is due": (
        lambda h: h.say(job(headers={"Authorization": "Bearer hunter2"})),
        "unsealed",
        'headers["Authorization"]: expected sealed values, found plain text',
    ),
    "plain secret of a callback": (
        lambda h: h.say(job(callbacks=(Callback(events=(), url="https://a.example/", secret="hunter2"),))),
        "unsealed",
        "callbacks[0].secret",
    ),
}


def order(wanted: JobRequested, step: str = "noop", attempt: int = 1) -> str:
    return ids.attempt_id(wanted.execution_id, step, attempt)


def outcome(attempt_id: str, wanted: JobRequested | None = None, **changes: Any) -> StepOutcome:
    said = StepOutcome(
        execution_id=(wanted or job()).execution_id,
        tenant=TENANT,
        attempt_id=attempt_id,
        take_id="t1",
        worker="w1",
        outcome="done",
        finished_at=NOW,
    )
    return replace(said, **changes)


def claim(attempt_id: str, **changes: Any) -> StepReport:
    said = StepReport(
        execution_id=job().execution_id,
        tenant=TENANT,
        attempt_id=attempt_id,
        take_id="t1",
        worker="w1",
        kind="claim",
        lease_s=20,
        reported_at=NOW,
    )
    return replace(said, **changes)


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_job_requested_is_dead_lettered_and_its_neighbours_run(house: House, case: str) -> None:
    write, reason, message = REFUSED[case]
    house.say(job("before"))
    write(house)
    house.say(job("after"))
    house.turn()
    [(found, text, _)] = house.dead("job.requested")
    assert found == reason
    assert message in text
    for key in ("before", "after"):
        assert house.names(job(key).execution_id) == ["execution.accepted"]
    assert house.history(job().execution_id) == []


def test_an_undecodable_record_keeps_its_bytes(house: House) -> None:
    house.broker.append(raw(job(), value=b"\x07garbage", headers=(("x-sender", b"\xff"),)))
    house.turn()
    [letter] = house.broker.records("job.requested.dlq")
    assert letter.value == b"\x07garbage"
    assert ("x-sender", b"\xff") in letter.headers


def test_the_dead_letter_of_plain_text_in_a_sealed_field_has_it_cut(house: House) -> None:
    secret = "hunter2-canary"
    callback = Callback(events=(), url="https://a.example/", headers={"X-Key": secret}, secret=secret)
    house.say(job(headers={"Authorization": secret}, callbacks=(callback,)))
    house.turn()
    [(reason, text, value)] = house.dead("job.requested")
    assert reason == "unsealed"
    assert secret not in text
    assert value is not None
    assert secret.encode() not in value
    cut = codec().decode("job.requested", value)
    assert isinstance(cut, JobRequested)
    assert cut.callbacks[0].url == "https://a.example/"


@pytest.mark.parametrize("headers", [(), (("ce_id", b"\xff\xfe"), ("traceparent", b"junk"))])
def test_headers_are_for_others_a_record_without_good_ones_is_taken(house: House, headers: Any) -> None:
    house.broker.append(raw(job(), headers=headers))
    house.turn()
    assert house.names(job().execution_id) == ["execution.accepted"]
    assert house.dead("job.requested") == []


def test_the_same_request_again_changes_nothing(house: House) -> None:
    house.say(job())
    house.turn()
    house.say(job(requested_at=NOW + timedelta(seconds=5)))
    house.turn()
    assert house.names(job().execution_id) == ["execution.accepted"]
    assert house.dead("job.requested") == []


def test_the_same_id_with_another_body_is_a_conflict(house: House) -> None:
    house.say(job())
    house.say(job(name="weekly"))
    house.turn()
    assert [reason for reason, _, _ in house.dead("job.requested")] == ["id_conflict"]
    assert house.names(job().execution_id) == ["execution.accepted"]


def test_an_unknown_job_type_is_rejected_with_the_known_ones(house: House) -> None:
    house.say(job(job_type="teleport"))
    house.turn()
    [rejected] = house.history(job().execution_id)
    assert isinstance(rejected, events.ExecutionRejected)
    assert rejected.sequence == 1
    assert "known: export, noop" in rejected.errors[0].message
    assert [reason for reason, _, _ in house.dead("job.requested")] == ["rejected"]


def test_a_request_waits_for_the_dataset_it_names(house: House) -> None:
    house.say(job(job_type="export", definition_id="parcels", parameters={"params": {}, "time_range": None}))
    house.turn()
    assert house.history(job().execution_id) == []
    body = {"source": "depot", "table": "public.parcels", "columns": [{"name": "id", "type": "integer"}]}
    house.say(
        DefinitionState(
            kind="dataset",
            tenant=TENANT,
            id="parcels",
            revision=3,
            changed_at=NOW,
            deleted=False,
            body=body,
        )
    )

    def accepted() -> list[str]:
        house.turn()
        return house.names(job().execution_id)

    assert until(accepted, 5, "the request to be accepted") == ["execution.accepted"]
    [event] = house.history(job().execution_id)
    assert isinstance(event, events.ExecutionAccepted)
    assert event.request.definition is not None
    assert event.request.definition.revision == 3


def test_the_tombstone_of_a_definition_says_nothing_new(house: House) -> None:
    house.broker.append(Outgoing("definition.state", b"dataset/acme/parcels", None))
    house.turn()
    assert house.dead("definition.state") == []


def started(house: House) -> StepRequested:
    house.say(job())
    house.turn()
    [asked] = house.orders()
    return asked


# What is written to step.completed while attempt 1 is out, and the reason of its dead letter.
FORGED: dict[str, tuple[Callable[[str], StepOutcome], str]] = {
    "unknown execution": (lambda a: outcome(a, job("other")), "unknown_execution"),
    "another tenant": (lambda a: outcome(a, tenant="rival"), "tenant_mismatch"),
    "attempt that was never asked for": (lambda _: outcome(order(job(), attempt=7)), "unknown_attempt"),
    "step out of range": (lambda _: outcome(order(job(), step="s99")), "unknown_attempt"),
    "attempt of another form": (lambda _: outcome("1; drop table"), "unknown_attempt"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_outcome_changes_nothing(house: House, case: str) -> None:
    asked = started(house)
    forge, reason = FORGED[case]
    house.say(forge(asked.attempt_id))
    house.turn()
    assert [found for found, _, _ in house.dead("step.completed")] == [reason]
    assert house.names(job().execution_id) == ["execution.accepted"]
    house.say(outcome(asked.attempt_id))
    house.turn()
    assert house.names(job().execution_id)[-1] == "execution.completed"


@pytest.mark.parametrize("value", [b"\x07x", b"", None, b"{}", codec().encode(outcome("a"))[:-4], GOOD])
def test_an_undecodable_outcome_is_dead_lettered(house: House, value: bytes | None) -> None:
    asked = started(house)
    house.broker.append(raw(outcome(asked.attempt_id), value=value))
    house.turn()
    assert [reason for reason, _, _ in house.dead("step.completed")] == ["undecodable"]


def test_the_outcome_of_another_take_is_dropped_and_replays_too(house: House) -> None:
    asked = started(house)
    house.say(claim(asked.attempt_id))
    house.say(outcome(asked.attempt_id, take_id="t2"))
    house.turn()
    assert house.names(job().execution_id)[-1] == "step.running"
    house.say(outcome(asked.attempt_id))
    house.say(outcome(asked.attempt_id))
    house.turn()
    assert house.names(job().execution_id).count("execution.completed") == 1
    assert house.dead("step.completed") == []


def test_an_outcome_that_leads_to_too_large_an_event_fails_the_execution(house: House) -> None:
    asked = started(house)
    huge = File(name="x" * 1_000_000, key="k", batch=None, rows=1, bytes=1, sha256="", content_type="")
    house.say(outcome(asked.attempt_id, files=(huge,)))
    house.turn()
    assert [reason for reason, _, _ in house.dead("step.completed")] == ["too_large"]
    ended = house.history(job().execution_id)[-1]
    assert isinstance(ended, events.ExecutionFailed)
    assert ended.reason == "too_large"
    assert ended.dead_letter is not None
    assert ended.dead_letter.startswith("step.completed/")


def test_every_event_is_chained_to_the_one_before(house: House) -> None:
    asked = started(house)
    house.say(outcome(asked.attempt_id))
    house.turn()
    chain = b""
    for record in house.broker.records("execution.events"):
        assert record.value is not None
        chain = ids.chain(chain, record.value)
        assert dict(record.headers)["ms_chain"].decode() == chain.hex()
