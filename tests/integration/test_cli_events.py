"""`millstream events` on a real broker: every kind of tampering is named, harmless repetition is not."""

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from services.cli import log as logs
from services.cli import verify
from services.contracts import events
from services.contracts.envelope import Outgoing
from services.contracts.partition import partition_of
from services.runtime import schemas
from services.runtime.kafka import Publisher
from tests.commanding import Millstream
from tests.serving import accepted
from tests.stack import Stack
from tests.tampering import ATTACKS, HARMLESS, ID, OTHER, Named, chained, written
from tests.waiting import killed

pytestmark = pytest.mark.kafka
COPY = "execution.events"
TWELVE = [f"{number:040x}" for number in range(12)]


def write(publisher: Publisher, topic: str, records: Sequence[Outgoing]) -> None:
    """In this order on each partition, each under its key."""
    sent = [publisher.publish(topic, record.key, record.value, record.headers) for record in records]
    for future in sent:
        future.result(30)


def id_of(case: str) -> str:
    return hashlib.sha1(case.encode()).hexdigest()


@pytest.fixture(scope="module")
def findings(stack: Stack, publisher: Publisher) -> Mapping[str, list[Named]]:
    """What is named for each execution, when every case is an execution of one log."""
    topic = stack.fresh_topics({COPY: 12})[COPY]
    for attack, (change, _) in ATTACKS.items():
        write(publisher, topic, change(written(id_of(attack))))
    for case, change in HARMLESS.items():
        write(publisher, topic, change(written(id_of(case))))
    with contextlib.closing(logs.Log(stack.kafka)) as log:
        report = verify.verify(log, schemas.codec(), topic, None, lambda _: None)
    found: dict[str, list[Named]] = {}
    for finding in report.findings:
        found.setdefault(finding.execution_id, []).append((finding.kind, finding.sequence))
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_named(findings: Mapping[str, list[Named]], attack: str) -> None:
    assert findings.get(id_of(attack)) == ATTACKS[attack][1]


@pytest.mark.parametrize("case", HARMLESS)
def test_what_a_crash_may_write_is_no_attack(findings: Mapping[str, list[Named]], case: str) -> None:
    assert id_of(case) not in findings


def test_the_command(stack: Stack, publisher: Publisher, millstream: Millstream) -> None:
    topic = stack.fresh_topics({COPY: 12})[COPY]
    ran = millstream("events", "verify", "--topic", topic)
    assert (ran.code, ran.out) == (0, "") and "0 events of 0 executions" in ran.err
    log = written()
    write(publisher, topic, [*log[:2], *log[3:], *written(OTHER)])
    ran = millstream("events", "verify", "--topic", topic)
    assert ran.code == 1 and ran.out.startswith(f"dropped    {ID} sequence 3") and ran.out.count("\n") == 1
    assert "11 events of 2 executions (0 open); 1 fault" in ran.err
    found = millstream("events", "verify", "--topic", topic, "--json").json
    assert [(f["kind"], f["sequence"]) for f in found["findings"]] == [("dropped", 3)]
    assert millstream("events", "verify", "--topic", topic, "--execution", OTHER).code == 0
    assert millstream("events", "verify", "--topic", topic, "--execution", ID).code == 1
    assert "expected events" in millstream("events", "verify", "--topic", topic, "--execution", "c" * 40).err


def test_a_record_on_another_partition_is_inserted(
    stack: Stack, publisher: Publisher, millstream: Millstream
) -> None:
    topic = stack.fresh_topics({COPY: 12})[COPY]
    write(publisher, topic, written())
    record, elsewhere = written()[2], (partition_of(ID.encode(), 12) + 1) % 12
    publisher.publish(topic, record.key, record.value, record.headers, elsewhere).result(30)
    found = millstream("events", "verify", "--topic", topic, "--json").json["findings"]
    assert [(f["kind"], f["address"]) for f in found] == [("inserted", f"{topic}/{elsewhere}/0")]


def test_tail(stack: Stack, publisher: Publisher, millstream: Millstream) -> None:
    topic = stack.fresh_topics({COPY: 12})[COPY]
    tail = ("events", "tail", "--topic", topic)
    assert millstream(*tail, "--json").json == []
    assert "no events" in millstream(*tail).err
    for id in TWELVE:
        write(publisher, topic, written(id))
    newest = millstream(*tail, "-n", "3", "--jsonl").json_lines
    assert [event["execution_id"] for event in newest] == [TWELVE[-1]] * 3
    assert [event["sequence"] for event in newest] == [4, 5, 6]
    assert len(millstream(*tail, "--from-beginning", "--json").json) == 72
    assert len(millstream(*tail, "--since", "1h", "--json").json) == 72
    assert millstream(*tail, "--since", "2100-01-01T00:00:00Z", "--json").json == []
    one = millstream(*tail, "--execution", TWELVE[4], "--type", "on-start", "--json").json
    assert [event["type"] for event in one] == ["execution.started", "step.running"]
    assert "no event fits" in millstream(*tail, "--tenant", "nobody").err
    assert "a.csv: 1 row, 1 byte" in millstream(*tail, "--type", "file.published", "-n", "1").out


def test_tail_shows_nothing_sealed(stack: Stack, publisher: Publisher, millstream: Millstream) -> None:
    topic = stack.fresh_topics({COPY: 12})[COPY]
    event: events.Event = accepted(ID, headers={"Authorization": "sealed:v1:k1:AAAA"})
    write(publisher, topic, chained([event]))
    ran = millstream("events", "tail", "--topic", topic, "--jsonl")
    assert ran.json_lines and "sealed" not in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--type", "nonsense"), "expected one of execution.accepted"),
        (("--since", "yesterday"), "expected an instant"),
        (("--since", "2026-01-05T09:00:00"), "expected an instant with offset"),
        (("--follow", "--json"), "--jsonl"),
        (("--topic", "no.such.topic"), "expected a topic of the broker"),
    ],
)
def test_what_is_wrong_is_named(millstream: Millstream, words: tuple[str, ...], said: str) -> None:
    ran = millstream("events", "tail", *words)
    assert ran.code in (1, 2) and said in ran.err and not ran.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("shell", ["", "trap '' INT;"], ids=["", "started with SIGINT ignored"])
def test_a_signal_ends_what_follows(
    stack: Stack, publisher: Publisher, shell: str, number: signal.Signals
) -> None:
    topic = stack.fresh_topics({COPY: 12})[COPY]
    write(publisher, topic, written())
    words = ("events", "tail", "--topic", topic, "-n", "1", "--follow", "--jsonl")
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'{shell} exec "$@"', "sh", sys.executable, "-m", "services.cli", *words],
        env={"PATH": "", "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with killed(process):
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["sequence"] == 6
        write(publisher, topic, written(OTHER)[:1])  # it goes on with what comes
        assert json.loads(process.stdout.readline())["execution_id"] == OTHER
        process.send_signal(number)
        assert (process.wait(30), process.stderr.read()) == (2, "")
