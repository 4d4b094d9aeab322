"""The checks of the fault runs: each one must see the fault that it is there for."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import structs

from services.contracts import events, ids, public
from services.contracts.events import Event
from services.runtime import blobs, schemas
from services.runtime.container import Files
from tests import exporting
from tests.faults.harness import checks, files, parcels
from tests.faults.harness.history import History, Secrets, exhaust
from tests.faults.harness.receiver import Call, Receiver
from tests.faults.harness.topic import Story
from tests.faults.harness.watch import Life, Watch
from tests.serving import accepted, facts, file_story

SECRET = "whsec_" + "A" * 32
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def history() -> History:
    secrets = Secrets("canary", SECRET)
    return History(lambda: ("", ""), "http://127.0.0.1:9", secrets, random.Random(1), "t")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(SECRET) as running:
        yield running


def told(story: list[Event], *, order: list[int] | None = None, **changes: Any) -> Story:
    """A story read from records: `order` repeats or drops some, `chain` or `value` alter the last one."""
    records, chain = [], b""
    for event in story:
        value = schemas.codec().encode(event)
        chain = ids.chain(chain, value)
        records.append((event, value, chain.hex().encode()))
    read = Story()
    wanted = [records[index] for index in (order if order is not None else range(len(records)))]
    for index, (event, value, link) in enumerate(wanted):
        last = index == len(wanted) - 1
        read.take(
            event,
            changes.get("value", value) if last else value,
            changes.get("chain", link) if last else link,
        )
    return read


def asked_story(history: History) -> list[Event]:
    asked = history.new({"jobType": "noop"})
    asked.told = "ok"
    return file_story(asked.execution_id, "demo", "reports-BERN.csv", "k", b"x")


def test_a_whole_story_read_twice_is_fine(history: History) -> None:
    story = asked_story(history)
    read = told(story, order=[*range(6), *range(6)])
    assert (read.faults, read.repeated, read.end) == ([], 6, "execution.completed")
    assert checks.check_stories({story[0].execution_id: read}, history) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"order": [0, 1, 3]}, "expected sequence 3"),
        ({"order": [0, 2, 1]}, "expected sequence 2"),
        ({"chain": b"00"}, "ms_chain does not verify"),
        ({"order": [0, 1, 1], "value": b"other"}, "the same event id with other bytes"),
    ],
)
def test_a_damaged_log_is_seen(history: History, changes: dict[str, Any], fault: str) -> None:
    assert any(fault in found for found in told(asked_story(history), **changes).faults)


def test_an_event_after_the_end_is_seen(history: History) -> None:
    story = asked_story(history)
    again = structs.replace(story[5], sequence=7, event_id="f" * 32)
    assert any("after execution.completed" in found for found in told([*story, again]).faults)


def test_lost_and_foreign_executions_are_seen(history: History) -> None:
    story = asked_story(history)
    missing = checks.check_stories({}, history)
    unfinished = checks.check_stories({story[0].execution_id: told(story[:5])}, history)
    foreign = checks.check_stories({"0" * 40: told([accepted("0" * 40)])}, history)
    assert all("no terminal event" in found[0] for found in (missing, unfinished))
    assert any("nobody asked for" in found for found in foreign)


def test_wrong_webhooks_are_seen(
    history: History, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "DELIVERED_TIMEOUT_S", 0.1)
    story = asked_story(history)
    stories = {story[0].execution_id: told(story)}
    expected = checks.expected_webhooks(stories, history)
    good = [
        Call(path, f"{number:032x}", id, "t", msgspec.json.encode(public.cloud_event(event)), "canary")
        for number, ((path, id), event) in enumerate(expected.items())
    ]

    def faults(*calls: Call) -> list[str]:
        receiver.calls[:] = calls
        return checks.check_webhooks(stories, history, receiver)

    assert good and faults(*good, *good) == []
    assert "is missing" in faults(*good[1:])[0]
    assert "two webhook-ids" in faults(*good, replace(good[0], webhook_id="9" * 32))[0]
    assert "two bodies" in faults(*good, replace(good[0], body=good[0].body + b" "))[0]
    assert "not the log's event" in faults(replace(good[0], body=b"{}"), *good[1:])[0]
    assert "without the header" in faults(replace(good[0], canary=None), *good[1:])[0]
    assert "nobody is owed" in faults(*good, replace(good[0], event_id="9" * 32))[0]


def test_a_false_signature_is_seen(receiver: Receiver) -> None:
    headers = {"webhook-id": "f" * 32, "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}
    httpx.post(f"{receiver.url}/x", content=b"{}", headers=headers, trust_env=False)
    assert not receiver.calls and "WebhookVerificationError" in receiver.faults[0]


@pytest.mark.parametrize(("after_s", "returned_s", "faults"), [(25, None, 0), (31, None, 1), (45, 20, 0)])
def test_slow_recovery_is_seen(tmp_path: Path, after_s: int, returned_s: int | None, faults: int) -> None:
    watch = Watch(tmp_path)
    watch.lives.append(Life("worker", 77, AT, AT))
    if returned_s:
        watch.returns.append(AT + timedelta(seconds=returned_s))
    found, late = checks.recoveries({"e": lost_and_again(after_s)}, watch)
    assert (len(found), len(late)) == (1, faults)


def test_a_living_worker_taken_for_dead_is_seen(tmp_path: Path) -> None:
    assert "while host-77 lives" in checks.recoveries({"e": lost_and_again(5)}, Watch(tmp_path))[1][0]


def lost_and_again(after_s: int) -> Story:
    """A take of worker host-77 that was given up, and the next one."""
    fields: dict[str, Any] = facts("e" * 40, 1) | {"step": "export"}
    story = Story()
    story.events = [
        events.StepRunning(**fields, attempt=1, take_id="t", worker="host-77"),
        events.StepRetryScheduled(**fields, attempt=1, reason="worker_lost", message="", retry_at=AT),
        events.StepRunning(
            **(fields | {"occurred_at": AT + timedelta(seconds=after_s)}),
            attempt=2,
            take_id="u",
            worker="host-78",
        ),
    ]
    return story


def test_partial_and_missing_files_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"whole").hexdigest()
    monkeypatch.setattr(parcels, "copied", lambda url, depot, light: digest)
    store = blobs.connect(f"file://{tmp_path}/blobs")
    (tmp_path / "blobs" / ".unfinished" / "x").write_bytes(b"wh")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "file-keys").write_text(exporting.keys_text())

    def put(name: str, content: bytes) -> None:
        with Files(store, exporting.KEYS).create("demo", f"executions/demo/{name}") as writer:
            writer.write(content)
            writer.finish()

    put("reports-BERN.csv", b"whole")
    assert files.check_store(tmp_path, {}, "") == ([], 1)
    put("reports-CORK.csv", b"who")
    assert "not what psql copies" in files.check_store(tmp_path, {}, "")[0][0]
    story = told(file_story("e" * 40, "demo", "reports-BERN.csv", "b/reports-BERN.csv", b"x"))
    assert "not in the store" in files.check_store(tmp_path, {"e": story}, "")[0][0]


def test_a_request_by_the_data_exhaust_api_is_known_by_its_msgid(history: History) -> None:
    body = exhaust(parcels.REGIONAL_ID, ["NORTH", "BERN"])
    first, second = history.new(body), history.new(body)
    msgids = [asked.body["params"]["msgid"] for asked in (first, second)]
    assert msgids[0] != msgids[1]
    assert first.execution_id == ids.execution_id("demo", "dev", "POST job/request/submit", msgids[0])
    assert (first.depots, first.listeners) == (("ALTONA", "BERN", "DELFT", "ESPOO"), {})
