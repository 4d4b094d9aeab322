"""`millstream dlq` on a real broker: what is listed, shown, sent again as it was, and settled."""

import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.log import Stored, opened
from services.contracts import envelope
from services.contracts.commands import JobRequested
from services.contracts.envelope import Outgoing
from services.runtime import blobs, entropy, schemas
from services.runtime.entropy import LocalClock
from services.runtime.kafka import Publisher
from services.runtime.processor.letters import Letters, dead_letter
from services.runtime.processor.types import Input, Poison
from tests.commanding import Millstream
from tests.stack import Stack

pytestmark = pytest.mark.kafka
TOPIC = "step.completed"
"""Nothing consumes it on the shared broker, so that what is sent again lies where it was sent."""


@pytest.fixture
def reason() -> str:
    """A reason that no other test has."""
    return f"test_{entropy.fresh_id()[:12]}"


def given_up(publisher: Publisher, reason: str, topic: str = TOPIC, key: bytes | None = b"k\xff") -> Outgoing:
    """A record as some service dead-letters it; returns the record as it was."""
    headers = (("x-mine", b"1"), ("x-mine", b"\xff2"), ("ce_id", b"1"))
    record = Input(topic, 3, 7, key, b"no record \x00\xff", headers)
    letter = dead_letter("executor", record, Poison(reason, f"{reason}: expected this, found that"))
    publisher.publish(letter.topic, letter.key, letter.value, letter.headers).result(30)
    return Outgoing(record.topic, record.key, record.value, record.headers)


def stored(stack: Stack, address: str) -> Stored:
    topic, partition, offset = address.split("/")
    with opened(stack.kafka) as log:
        found = log.read(log.bounds([(topic, int(partition))]))
        return next(record for record in found if record.offset == int(offset))


def waiting(millstream: Millstream, reason: str, *more: str) -> list[str]:
    found = millstream("dlq", "list", "--reason", reason, "--json", *more).json
    return [letter["letter"] for letter in found]


def test_a_letter_is_listed_shown_sent_again_unchanged_and_settled(
    stack: Stack, publisher: Publisher, millstream: Millstream, reason: str
) -> None:
    original = given_up(publisher, reason)
    [letter] = millstream("dlq", "list", "--reason", reason, "--json").json
    assert letter["letter"].startswith(f"{TOPIC}.dlq/0/")
    assert (letter["state"], letter["origin"]) == ("open", f"{TOPIC}/3/7")
    assert letter["error"] == f"{reason}: expected this, found that"
    assert letter["letter"] in millstream("dlq", "list", "--topic", TOPIC).out
    shown = millstream("dlq", "show", letter["letter"])
    assert reason in shown.out and "not decoded" in shown.out and "6e 6f 20 72" in shown.out

    ran = millstream("dlq", "resend", letter["letter"])
    assert ran.code == 0 and ran.out.startswith(f"{letter['letter']} -> {TOPIC}/")
    record = stored(stack, ran.out.split()[-1])
    assert (record.key, record.value, record.headers) == (original.key, original.value, original.headers)

    assert waiting(millstream, reason) == []
    [settled] = millstream("dlq", "list", "--reason", reason, "--all", "--json").json
    assert settled["state"] == "resent" and settled["settled"]["note"] == ran.out.split()[-1]
    again = millstream("dlq", "resend", letter["letter"])
    assert again.code == 1 and "expected one that waits" in again.err
    assert millstream("dlq", "resend", letter["letter"], "--again").code == 0


def test_all_of_a_reason_at_once(publisher: Publisher, millstream: Millstream, reason: str) -> None:
    for topic in (TOPIC, TOPIC, "step.progressed"):
        given_up(publisher, reason, topic)
    assert len(waiting(millstream, reason)) == 3
    assert len(waiting(millstream, reason, "--topic", "step.progressed")) == 1
    ran = millstream("dlq", "resend", "--all", "--reason", reason, "--topic", TOPIC)
    assert ran.out.count(" -> ") == 2 and len(waiting(millstream, reason)) == 1
    assert "no dead letter waits" in millstream("dlq", "resend", "--all", "--reason", "no_such").err


def test_a_rejected_request_is_left_open(publisher: Publisher, millstream: Millstream, reason: str) -> None:
    topic = "execution.commands"  # no other test has letters on it
    known = set(waiting(millstream, "rejected"))
    given_up(publisher, "rejected", topic)
    [address] = set(waiting(millstream, "rejected")) - known
    given_up(publisher, reason, topic)
    [good] = waiting(millstream, reason)

    named = millstream("dlq", "resend", good, address)
    assert named.code == 1 and not named.out, "nothing is sent where one letter cannot be"
    assert address in named.err and "submit it again under a new execution id" in named.err

    ran = millstream("dlq", "resend", "--all", "--topic", topic)
    assert ran.code == 1 and f"not sent: {address}" in ran.err
    assert f"{good} -> {topic}/" in ran.out and address not in ran.out
    assert address in waiting(millstream, "rejected") and waiting(millstream, reason) == []
    assert millstream("dlq", "discard", address, "--note", "submitted anew").code == 0


def test_a_record_without_a_key_goes_back_to_its_partition(
    publisher: Publisher, millstream: Millstream, reason: str
) -> None:
    given_up(publisher, reason, key=None)
    ran = millstream("dlq", "resend", "--all", "--reason", reason)
    assert ran.out.split()[-1].startswith(f"{TOPIC}/3/")


def test_discarding_needs_a_reason_and_keeps_it(
    publisher: Publisher, millstream: Millstream, reason: str
) -> None:
    given_up(publisher, reason)
    [address] = waiting(millstream, reason)
    assert millstream("dlq", "discard", address).code == 2
    assert millstream("dlq", "discard", address, "--note", "a test").out == f"{address} discarded\n"
    assert waiting(millstream, reason) == []
    shown = millstream("dlq", "show", address)
    assert "discarded" in shown.out and "a test" in shown.out


def test_secrets_are_not_shown(publisher: Publisher, millstream: Millstream, reason: str) -> None:
    job = JobRequested(
        execution_id=entropy.fresh_id(),
        tenant="acme",
        requested_at=LocalClock().now(),
        created_by="alice",
        name="n",
        job_type="noop",
        headers={"Authorization": "sealed:v1:k1:AAAA"},
    )
    sent = envelope.command(job, schemas.codec().encode(job))
    letter = dead_letter(
        "executor", Input(sent.topic, 0, 0, sent.key, sent.value, sent.headers), Poison(reason, "x")
    )
    publisher.publish(letter.topic, letter.key, letter.value, letter.headers).result(30)
    [address] = waiting(millstream, reason)
    shown = millstream("dlq", "show", address, "--json").json
    assert shown["record"]["execution_id"] == job.execution_id and shown["problem"] is None
    assert shown["record"]["headers"] == {"Authorization": "(sealed)"}


def test_the_bytes_as_they_are(
    stack: Stack, publisher: Publisher, millstream: Millstream, reason: str
) -> None:
    original = given_up(publisher, reason)
    [address] = waiting(millstream, reason)
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "dlq", "show", address, "--raw"],
        env={"PATH": "", **millstream.environ},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == original.value


def test_a_record_of_which_the_letter_holds_only_the_head(
    stack: Stack, publisher: Publisher, tmp_path: Path, reason: str
) -> None:
    store = (tmp_path / "blobs").as_uri()
    value, own = b"\xff\x00" * 200_000, (("x-mine", b"1"), ("ms_bytes", b"7"))
    record = Input(TOPIC, 3, 7, b"k" * 5000, value, own)
    letter = Letters(blobs.connect(store), LocalClock()).fitted(
        dead_letter("executor", record, Poison(reason, "no text"))
    )
    publisher.publish(letter.topic, letter.key, letter.value, letter.headers).result(30)
    environment = {"MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap}
    blind = Millstream(tmp_path, environment)
    [address] = waiting(blind, reason)
    assert "MILLSTREAM_BLOBS__URL: expected" in blind("dlq", "resend", address).err
    elsewhere = Millstream(tmp_path, {**environment, "MILLSTREAM_BLOBS__URL": (tmp_path / "other").as_uri()})
    missing = elsewhere("dlq", "resend", address)
    assert missing.code == 1 and "expected the whole record of 400000 bytes" in missing.err
    assert "x-mine" in blind("dlq", "show", address).out

    seeing = Millstream(tmp_path, {**environment, "MILLSTREAM_BLOBS__URL": store})
    assert seeing("dlq", "show", address, "--json").json["bytes"] == len(value)
    ran = seeing("dlq", "resend", address)
    assert ran.code == 0, ran.err
    sent = stored(stack, ran.out.split()[-1])
    assert (sent.key, sent.value, sent.headers) == (record.key, value, own)
    assert waiting(seeing, reason) == []


def test_a_letter_may_bring_a_header_that_settles_others(
    publisher: Publisher, millstream: Millstream, reason: str
) -> None:
    given_up(publisher, reason)
    [address] = waiting(millstream, reason)
    claims_to = ("ms_settles", address.partition("/")[2].encode())
    forged = dead_letter("executor", Input(TOPIC, 3, 8, b"k", b"x", (claims_to,)), Poison(reason, "forged"))
    publisher.publish(forged.topic, forged.key, forged.value, forged.headers).result(30)
    assert len(waiting(millstream, reason)) == 2
    assert millstream("dlq", "discard", "--all", "--reason", reason, "--note", "a test").code == 0
    assert waiting(millstream, reason) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("show", "nonsense"), 2, "expected <topic>/<partition>/<offset>"),
        (("show", "job.requested.dlq/0/999999"), 1, "expected a dead letter, found none"),
        (("resend",), 2, "expected letters, or --all"),
        (("resend", "a", "--all"), 2, "expected letters, or --all"),
        (("list", "--topic", "nonsense"), 2, "expected one of job.requested.dlq"),
    ],
)
def test_what_is_wrong_is_named(millstream: Millstream, words: tuple[str, ...], code: int, said: str) -> None:
    ran = millstream("dlq", *words)
    assert ran.code == code and said in ran.err and not ran.out


def test_a_broker_that_is_away(tmp_path: Path) -> None:
    ran = Millstream(tmp_path, {"MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"})("dlq", "list")
    assert ran.code == 1 and "Kafka at 127.0.0.1:1: expected an answer" in ran.err
