"""The command line on a running system: from a sample to its file, its log, its dead letters."""

from pathlib import Path

import pytest

from services.runtime.kafka import Publisher
from services.runtime.settings import Kafka
from tests.commanding import Millstream, Ran
from tests.local import Local
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


class Command:
    """`millstream --data <the running system> ...`."""

    def __init__(self, local: Local, folder: Path) -> None:
        self._run = Millstream(folder)
        self._data = str(local.folder.root)

    def __call__(self, *words: str) -> Ran:
        return self._run("--data", self._data, *words)


@pytest.fixture
def millstream(local: Local, folder: Path) -> Command:
    return Command(local, folder)


def test_the_sample_is_exported_and_downloaded(millstream: Command, folder: Path) -> None:
    ran = millstream("job", "submit", "--sample", "--wait", "--json")
    assert ran.code == 0, ran.err
    id = ran.json["execution_id"]
    assert ran.json["status"] == "completed"
    assert [file["rows"] for file in ran.json["files"] if file["batch"]] == [5000] * 4
    assert millstream("job", "download", id, "--to", "files").code == 0
    lines = (folder / "files" / "reports-north.csv").read_text().splitlines()
    assert lines[:2] == [
        "id,ordered_at,region,customer,items,total",
        "4,2026-01-01 00:44:00+00,north,customer-769,8,189.16",
    ]


def test_hints_name_the_stack_that_was_talked_to(millstream: Command, local: Local) -> None:
    ran = millstream("job", "submit", "--sample", "--wait")
    assert f"millstream --data {local.folder.root} job download " in ran.err
    ran = millstream("job", "submit", "--type", "noop")
    assert f"millstream --data {local.folder.root} job watch {ran.out.strip()}" in ran.err


def test_the_settings_of_the_running_stack_are_shown(millstream: Command, local: Local) -> None:
    ran = millstream("config", "show", "--origin", "--json")
    found = {entry["key"]: (entry["value"], entry["origin"]) for entry in ran.json}
    whose = f"the running millstream dev in {local.folder.root}"
    assert found["MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS"] == (local.state["kafka_bootstrap"], whose)
    assert found["MILLSTREAM_SEALING__KEYS"][0] == "***"
    assert ran.err == f"settings of {whose}\n"


def test_an_execution_is_watched_run_again_and_not_cancelled_any_more(millstream: Command) -> None:
    ran = millstream("job", "submit", "--type", "noop", "--wait")
    assert ran.code == 0 and "execution.completed" in ran.out
    id = ran.err.split()[1]
    refused = millstream("job", "cancel", id, "--reason", "too late")
    assert refused.code == 1 and "has ended" in refused.err
    again = millstream("job", "rerun", id, "--wait", "--json")
    assert again.code == 0 and again.json["status"] == "completed" and again.json["execution_id"] != id


def test_a_later_run_is_cancelled(millstream: Command) -> None:
    id = millstream("job", "submit", "--type", "noop", "--at", "2026-12-31T00:00:00Z").out.strip()
    assert millstream("job", "cancel", id, "--reason", "changed my mind").out == f"{id} cancelled\n"
    watched = millstream("job", "watch", id, "--exit-status")
    assert watched.code == 1 and "changed my mind" in watched.out
    assert [
        entry["execution_id"] for entry in millstream("job", "list", "--status", "cancelled", "--json").json
    ] == [id]


def test_the_log_of_a_step(millstream: Command) -> None:
    id = millstream("job", "submit", "--sample", "--wait", "--json").json["execution_id"]
    ran = millstream("job", "logs", id)
    assert ran.code == 0 and "reports-north.csv" in ran.out
    assert millstream("job", "logs", id, "--follow").out == ran.out
    assert "expected one of export" in millstream("job", "logs", id, "--step", "nothing").err


def test_the_log_of_events_is_whole(millstream: Command) -> None:
    id = millstream("job", "submit", "--type", "noop", "--wait", "--json").json["execution_id"]
    found = millstream("events", "verify", "--json").json
    assert found["findings"] == [] and found["executions"] > 0
    tailed = millstream("events", "tail", "--execution", id, "--json").json
    assert [event["sequence"] for event in tailed] == list(range(1, len(tailed) + 1))


def test_a_bad_record_is_shown_sent_again_and_settled(local: Local, millstream: Command) -> None:
    key = b"a record that nobody can read"
    publisher = Publisher(Kafka(bootstrap_servers=local.state["kafka_bootstrap"]), "tests-cli")
    publisher.publish("job.requested", key, b"nonsense", (("x-mine", b"1"),)).result(30)
    publisher.close(10)

    def waiting(count: int) -> list[str]:
        found = millstream(
            "dlq", "list", "--topic", "job.requested", "--reason", "undecodable", "--json"
        ).json
        ours = [letter["letter"] for letter in found if letter["key"] == key.decode()]
        return ours if len(ours) == count else []

    [first] = until(lambda: waiting(1), 30, "the dead letter")
    shown = millstream("dlq", "show", first, "--json").json
    assert "0x00 and a 4-byte schema id" in shown["error"]
    assert ["x-mine", "1"] in shown["headers"]
    assert millstream("dlq", "resend", first).code == 0
    # the manager gives it up again: the same record, another letter
    [second] = until(lambda: waiting(1), 30, "its next dead letter")
    again = millstream("dlq", "show", second, "--json").json
    assert second != first and again["headers"] == shown["headers"] and again["error"] == shown["error"]
    assert millstream("dlq", "discard", second, "--note", "a test").code == 0
    assert waiting(1) == []
