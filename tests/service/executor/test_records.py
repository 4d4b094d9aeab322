"""What the manager makes of bad records from other services: one table, one expected answer each."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from services.contracts import envelope, events, ids
from services.contracts.commands import (
    Callback,
    Command,
    DefinitionState,
    File,
    JobRequested,
    StepRequested,
)
from services.contracts.envelope import Outgoing
from services.contracts.partition import partition_of
from services.runtime.schemas import codec
from tests.service.executor.house import NOW, TENANT, Desk, House, claim, job, outcome
from tests.waiting import until


@pytest.fixture
def house() -> House:
    return House()


Case = Callable[[House, Any], object]


def both(write: Case, reason: str, message: str) -> dict[str, tuple[Case, str, str]]:
    return dict.fromkeys(("job.requested", "step.completed"), (write, reason, message))


def raw(record: Command, **changes: Any) -> Outgoing:
    return structs.replace(envelope.command(record, codec().encode(record)), **changes)


GOOD = codec().encode(job())
FAR = datetime(9999, 12, 31, tzinfo=UTC)
NUL = "a\0b"


def damaged(change: Callable[[bytes], bytes | None]) -> Case:
    """The bytes of a good record, changed."""

    def write(house: House, good: Command) -> None:
        house.broker.append(raw(good, value=change(codec().encode(good))))

    return write


def displaced(**changes: Any) -> Case:
    """A good record with another key or other headers."""
    return lambda house, good: house.broker.append(raw(good, **changes))


def altered(**changes: Any) -> Case:
    """A record with other fields."""
    return lambda house, good: house.say(structs.replace(good, **changes))


def elsewhere(house: House, good: Command) -> None:
    record = raw(good)
    home = partition_of(record.key or b"", 12)
    house.broker.append(record, (home + 1) % 12)


def again_with(**changes: Any) -> Case:
    def write(house: House, good: Command) -> None:
        house.say(good)
        house.say(structs.replace(good, **changes))

    return write


TAKEN = "taken"  # no dead letter, and it has its effect
HUGE = "y" * 10_000_000
DEFINED = codec().encode(
    DefinitionState(
        kind="dataset", tenant=TENANT, id="parcels", revision=1, changed_at=NOW, deleted=False, body={}
    )
)
UNKNOWN_ID = b"\x00\x00\x00\x27\x0f"

# The named cases of bad records: what is written to each topic, the reason of the dead letter, and a part of
# its message. `good` is a record that would be taken.
CASES: dict[str, dict[str, tuple[Case, str, str]]] = {
    "wrong magic": both(damaged(lambda v: b"\x07" + v[1:]), "undecodable", "0x07"),
    "unknown schema": both(damaged(lambda v: UNKNOWN_ID + v[5:]), "undecodable", "unknown schema id 9999"),
    "truncated": both(damaged(lambda v: v[:-9]), "undecodable", "damaged or truncated"),
    "union mismatch": both(damaged(lambda v: v[:-12] + b"\x7f" * 12), "undecodable", ""),
    "new required field": both(damaged(lambda v: v + b"\x06new"), "undecodable", "bytes follow the record"),
    "JSON in an Avro topic": both(damaged(lambda _: b'{"execution_id": "x"}'), "undecodable", "0x7b"),
    "empty": both(damaged(lambda _: b""), "undecodable", "the value is empty"),
    "tombstone": both(damaged(lambda _: None), "undecodable", "the value is empty"),
    "10 MB": {
        "job.requested": (altered(parameters={"x": HUGE}), "rejected", "expected at most 262144 bytes"),
        "step.completed": (altered(output=HUGE), "too_large", "the limit is 900000"),
    },
    "no headers": both(displaced(headers=()), TAKEN, ""),
    "bad header bytes": both(displaced(headers=(("ce_id", b"\xff\xfe"), ("traceparent", b"x"))), TAKEN, ""),
    "tenant unlike key": {
        "job.requested": (displaced(key=b"0" * 40), "key_mismatch", "use it as the key"),
        "step.completed": (altered(tenant="rival"), "tenant_mismatch", "belongs to another tenant"),
    },
    "same id other body": {
        "job.requested": (again_with(name="weekly"), "id_conflict", "use a new id"),
        "step.completed": (again_with(outcome="fail"), TAKEN, ""),
    },
    "unknown type": both(damaged(lambda _: DEFINED), "undecodable", "does not belong on topic"),
    "year 9999": {
        "job.requested": (altered(requested_at=FAR), "bad_time", "at most a day ahead"),
        "step.completed": (altered(finished_at=FAR), TAKEN, ""),  # a worker's clock decides nothing
    },
    "step out of range": {
        "step.completed": (altered(attempt_id=ids.attempt_id("0" * 40, "s99", 1)), "unknown_attempt", "never")
    },
    "forged step.completed": {
        "step.completed": (altered(execution_id="f" * 40), "unknown_execution", "no execution ffff")
    },
    "replayed outcome": {"step.completed": (again_with(), TAKEN, "")},
    # Beyond the named ones:
    "written by another partitioner": both(elsewhere, "wrong_partition", "partitioner=murmur2_random"),
    "no key": both(displaced(key=None), "key_mismatch", "use it as the key"),
    "id of another form": both(altered(execution_id="42"), "bad_id", "40 hex digits"),
    "a month old": {"job.requested": (altered(requested_at=NOW - timedelta(days=31)), "too_old", "30 days")},
    "NUL in a name": {
        "job.requested": (altered(definition_id=NUL), "bad_name", "definition_id: expected the form")
    },
    "tenant of another form": {"job.requested": (altered(tenant="../../x"), "bad_name", "tenant: expected")},
    "unknown origin": {"job.requested": (altered(origin="whatever"), "bad_name", "origin: expected one of")},
    "number beyond 64 bits": {
        "job.requested": (altered(actions=[10**30]), "internal_error", "OverflowError"),
        "step.completed": (altered(output={"n": 10**30}), "internal_error", "OverflowError"),
    },
    "number that would lose digits": {
        "job.requested": (
            altered(parameters={"params": {"x": Decimal("1231231231231234123.5")}}),
            "rejected",
            "params.x: expected a number that a 64-bit float keeps exactly",
        )
    },
    "plain text where sealed is due": {
        "job.requested": (
            altered(headers={"Authorization": "Bearer hunter2"}),
            "unsealed",
            'headers["Authorization"]: expected sealed values, found plain text',
        )
    },
    "plain secret of a callback": {
        "job.requested": (
            altered(callbacks=(Callback(events=(), url="https://a.example/", secret="hunter2"),)),
            "unsealed",
            "callbacks[0].secret",
        )
    },
}
PAIRS = [(case, topic) for case, topics in CASES.items() for topic in topics]


@pytest.mark.parametrize(("case", "topic"), PAIRS)
def test_a_bad_record_gets_its_answer_and_its_neighbours_go_on(house: House, case: str, topic: str) -> None:
    write, reason, message = CASES[case][topic]
    house.say(job("before"))
    if topic == "step.completed":
        good: Command = outcome(started(house).attempt_id)
        before = house.names(job().execution_id)
    else:
        good, before = job(), []
    write(house, good)
    house.say(job("after"))
    house.turn()
    dead = house.dead(topic)
    if reason == TAKEN:
        assert dead == []
        assert len(house.names(job().execution_id)) > len(before)
    else:
        [(found, text, _)] = dead
        assert found == reason
        assert message in text
    for key in ("before", "after"):
        assert house.names(job(key).execution_id) == ["execution.accepted"]


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


SECRET = "hunter2-canary"
SIGNED = Callback(events=(), url="https://a.example/", secret=SECRET)
PLAIN = job(headers={"Authorization": SECRET}, callbacks=(SIGNED,))
REFUSED: dict[str, Case] = {
    "id_conflict": again_with(headers={"Authorization": SECRET}),
    "too_old": altered(requested_at=NOW - timedelta(days=31)),
    "bad_time": altered(requested_at=FAR),
    "bad_name": altered(created_by=NUL),
    "bad_id": altered(execution_id="42"),
    "key_mismatch": displaced(key=b"0" * 40),
    "wrong_partition": elsewhere,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_no_other_fault_of_a_request_lets_plain_text_into_its_dead_letter(house: House, reason: str) -> None:
    REFUSED[reason](house, job() if reason == "id_conflict" else PLAIN)
    house.turn()
    [(found, text, value)] = house.dead("job.requested")
    assert found == reason
    assert value is not None
    assert SECRET not in text and SECRET.encode() not in value


def test_a_request_that_was_cut_is_refused_again_when_it_is_sent_again(house: House) -> None:
    wanted = job(callbacks=(SIGNED,))
    elsewhere(house, wanted)
    house.turn()
    [letter] = house.broker.records("job.requested.dlq")
    house.broker.append(raw(wanted, value=letter.value))
    house.turn()
    assert [reason for reason, _, _ in house.dead("job.requested")] == ["wrong_partition", "unsealed"]
    assert house.history(wanted.execution_id) == []


def test_the_same_request_again_changes_nothing(house: House) -> None:
    house.say(job())
    house.turn()
    house.say(job(requested_at=NOW + timedelta(seconds=5)))
    house.turn()
    assert house.names(job().execution_id) == ["execution.accepted"]
    assert house.dead("job.requested") == []


def test_an_unknown_job_type_is_rejected_with_the_known_ones(house: House) -> None:
    house.say(job(job_type="teleport"))
    house.turn()
    [rejected] = house.history(job().execution_id)
    assert isinstance(rejected, events.ExecutionRejected)
    assert rejected.sequence == 1
    assert "known: export, noop" in rejected.errors[0].message
    assert [reason for reason, _, _ in house.dead("job.requested")] == ["rejected"]


def test_a_parked_request_conflicts_with_another_body_too(house: House) -> None:
    house.say(job(job_type="export", definition_id="parcels"))
    house.say(job(job_type="export", definition_id="parcels", name="weekly"))
    house.turn()
    assert [reason for reason, _, _ in house.dead("job.requested")] == ["id_conflict"]


def test_a_definition_has_its_home_and_its_form(house: House) -> None:
    good = DefinitionState(
        kind="dataset", tenant=TENANT, id="parcels", revision=1, changed_at=NOW, deleted=False, body={}
    )
    displaced(key=b"dataset/rival/parcels")(house, good)
    elsewhere(house, good)
    altered(id="../x")(house, good)
    house.turn()
    reasons = [reason for reason, _, _ in house.dead("definition.state")]
    assert sorted(reasons) == ["bad_name", "key_mismatch", "wrong_partition"]


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


BROKEN = DefinitionState(
    kind="dataset", tenant=TENANT, id="parcels", revision=1, changed_at=NOW, deleted=False, body={}
)


@pytest.mark.parametrize("definition", [None, BROKEN])
def test_a_request_refused_after_its_wait_is_a_dead_letter_as_it_came(
    definition: DefinitionState | None,
) -> None:
    desk, wanted = (
        Desk(),
        raw(job(job_type="export", definition_id="parcels"), headers=(("x-mine", b"\xff"),)),
    )
    assert desk.hand_in(wanted) == []
    if definition is not None:
        desk.say(definition)
    assert desk.wait(30) == ["execution.rejected", "job.requested.dlq"]
    letter = desk.out[-1]
    assert (letter.key, letter.value) == (wanted.key, wanted.value)
    headers = dict(letter.headers)
    assert (headers["x-mine"], headers["ms_reason"]) == (b"\xff", b"rejected")
    assert headers["ms_origin"].startswith(b"job.requested/")
    assert desk.wait(3600) == []


def test_the_tombstone_of_a_definition_says_nothing_new(house: House) -> None:
    house.broker.append(Outgoing("definition.state", b"dataset/acme/parcels", None))
    house.turn()
    assert house.dead("definition.state") == []


def started(house: House) -> StepRequested:
    house.say(job())
    house.turn()
    return next(asked for asked in house.orders() if asked.execution_id == job().execution_id)


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
