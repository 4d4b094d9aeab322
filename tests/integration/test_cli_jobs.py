"""`millstream job` against a served api: what is printed, which exit code, and one valid JSON document."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.api.routes import commands
from services.cli import commanding
from services.contracts import ids
from services.contracts.commands import ExecutionCommand
from services.contracts.events import (
    CommandRefused,
    Event,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionRerun,
)
from tests.commanding import Millstream
from tests.serving import FLIGHTS, Api, accepted, facts, file_story
from tests.waiting import until

pytestmark = pytest.mark.postgres


@pytest.fixture
def millstream(api: Api, tmp_path: Path) -> Millstream:
    """The command for a new tenant of the test's own."""
    key = api.key("operator", tenant=tmp_path.name.replace("_", "-")[:60])
    return Millstream(tmp_path, {"MILLSTREAM_CLIENT__URL": api.url, "MILLSTREAM_CLIENT__KEY": key})


def test_nothing_yet(millstream: Millstream) -> None:
    ran = millstream("job", "list")
    assert (ran.code, ran.out) == (0, "") and "job submit --sample" in ran.err
    assert millstream("job", "list", "--json").json == []
    assert millstream("job", "list", "--jsonl").out == ""


def test_submit_get_list(millstream: Millstream) -> None:
    ran = millstream("job", "submit", "--type", "noop", "--name", "first", "--tag", "t")
    id = ran.out.strip()
    assert ran.code == 0 and f"millstream job watch {id}" in ran.err
    found = millstream("job", "get", id, "--json").json
    assert (found["name"], found["tag"], found["status"]) == ("first", "t", "pending")
    assert millstream("job", "submit", "--type", "noop", "--json").json["status"] == "pending"
    assert [entry["execution_id"] for entry in millstream("job", "list", "--jsonl").json_lines][-1] == id
    assert len(millstream("job", "list", "--json", "--limit", "1").json) == 1
    text = millstream("job", "get", id).out
    assert "pending" in text and "first" in text
    assert id in millstream("job", "list").out


def test_lists_go_on_over_pages(millstream: Millstream) -> None:
    ids = {millstream("job", "submit", "--type", "noop").out.strip() for _ in range(3)}
    # pages of 200 are the largest: the option asks for fewer than lie on one page only in the last request
    assert {entry["execution_id"] for entry in millstream("job", "list", "--json").json} == ids


def test_the_same_key_is_the_same_execution(millstream: Millstream) -> None:
    words = ("job", "submit", "--type", "noop", "--key", "k")
    first = millstream(*words)
    assert millstream(*words).out == first.out
    ran = millstream(*words, "--name", "another")
    assert ran.code == 1 and "another body" in ran.err


def test_a_request_from_a_file(millstream: Millstream, api: Api, tmp_path: Path) -> None:
    with api.client(millstream.environ["MILLSTREAM_CLIENT__KEY"]) as client:
        client.put("/v1/datasets/flights", content=FLIGHTS, headers={"Content-Type": "application/yaml"})
    (tmp_path / "request.yaml").write_text(
        "jobType: export\ndataset: flights\n"
        "timeRange: {from: 2013-01-01T00:00:00Z, to: 2013-02-01T00:00:00Z}\n"
    )
    id = millstream("job", "submit", "request.yaml", "--param", 'batches=["AA"]').out.strip()
    stored = api.outgoing("job.requested")[-1]
    assert stored.execution_id == id and stored.parameters["params"] == {"batches": ["AA"]}
    # a dataset on the command line is an export
    assert millstream("job", "submit", "--dataset", "flights").code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("submit",), 2, "expected a FILE, --type, --dataset or --sample"),
        (("submit", "missing.json"), 2, "expected a readable file"),
        (("submit", "--type", "noop", "--param", "x"), 2, "expected NAME=VALUE"),
        (("submit", "--type", "nothing"), 1, "jobType"),
        (("submit", "--dataset", "nothing"), 1, "unknown dataset"),
        (("get", "f" * 40), 1, "Not found"),
        (("get",), 2, "Missing argument"),
        (("download", "f" * 40), 1, "Not found"),
    ],
)
def test_what_is_wrong_is_named(millstream: Millstream, words: tuple[str, ...], code: int, said: str) -> None:
    ran = millstream("job", *words)
    assert ran.code == code and said in ran.err and not ran.out


def test_every_fault_of_a_request_is_shown(millstream: Millstream, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(json.dumps({"jobType": "noop", "tag": 5, "name": 7}))
    ran = millstream("job", "submit", "request.json")
    assert ran.code == 1 and "  name: " in ran.err and "  tag: " in ran.err


def test_a_wrong_key_is_4(api: Api, tmp_path: Path) -> None:
    key = f"ms_0123456789ab_{'A' * 43}"
    environ = {"MILLSTREAM_CLIENT__URL": api.url, "MILLSTREAM_CLIENT__KEY": key}
    assert Millstream(tmp_path, environ)("job", "list").code == 4
    viewer = {**environ, "MILLSTREAM_CLIENT__KEY": api.key("viewer")}
    assert Millstream(tmp_path, viewer)("job", "submit", "--type", "noop").code == 4


def test_who_am_i(api: Api, tmp_path: Path) -> None:
    key = api.key("author", "acme", "bot", owner="ada", groups=["finance", "audit"])
    millstream = Millstream(tmp_path, {"MILLSTREAM_CLIENT__URL": api.url, "MILLSTREAM_CLIENT__KEY": key})
    told = dict(line.split(maxsplit=1) for line in millstream("whoami").out.splitlines())
    assert told == {
        "tenant": "acme",
        "principal": "bot",
        "owner": "ada",
        "role": "author",
        "groups": "finance, audit",
        "key": f"{key[:15]}_...",
        "API": api.url,
    }
    assert millstream("whoami", "--json").json["principal"] == "bot"


def test_an_api_that_is_away(tmp_path: Path) -> None:
    environ = {"MILLSTREAM_CLIENT__URL": "http://127.0.0.1:1", "MILLSTREAM_CLIENT__KEY": "k"}
    ran = Millstream(tmp_path, environ)("job", "list")
    assert ran.code == 1 and "expected an answer" in ran.err and "millstream context show" in ran.err


def test_files_are_downloaded_and_compared(millstream: Millstream, api: Api, tmp_path: Path) -> None:
    waiting = millstream("job", "submit", "--type", "noop").out.strip()
    assert "expected published files, found none" in millstream("job", "download", waiting).err
    with api.client(millstream.environ["MILLSTREAM_CLIENT__KEY"]) as client:
        id = api.publish_file(client, "a.csv", b"a\n1\n")["execution_id"]
    assert millstream("job", "download", id, "--to", "files").code == 0
    assert (tmp_path / "files" / "a.csv").read_bytes() == b"a\n1\n"
    assert "a.csv" in millstream("job", "get", id).out


def test_an_execution_is_followed_to_its_end(millstream: Millstream, api: Api) -> None:
    id = millstream("job", "submit", "--type", "noop").out.strip()
    tenant = api.rows("SELECT tenant FROM api.job_request WHERE execution_id = %s", id)[0][0]
    story = file_story(id, tenant, "a.csv", "k", b"a")
    with ThreadPoolExecutor(1) as pool:
        projecting = pool.submit(api.project, story)
        followed = millstream("job", "watch", id, "--jsonl").json_lines
        projecting.result(30)
    assert [event["sequence"] for event in followed] == list(range(1, len(story) + 1))
    text = millstream("job", "watch", id, "--exit-status")
    assert text.code == 0 and "execution.completed" in text.out
    assert millstream("job", "watch", id, "--json").json["status"] == "completed"


def test_text_that_looks_like_the_end_of_a_line_is_shown_whole(millstream: Millstream, api: Api) -> None:
    id = millstream("job", "submit", "--type", "noop").out.strip()
    tenant = api.rows("SELECT tenant FROM api.job_request WHERE execution_id = %s", id)[0][0]
    message = "a\u2028b\u2029c\x85d\x0ce"
    failed = ExecutionFailed(**facts(id, 2, tenant), reason="r", message=message, step=None, dead_letter=None)
    api.project([accepted(id, tenant), failed])
    ran = millstream("job", "watch", id)
    assert ran.code == 0 and message in ran.out


def test_one_that_fails_is_exit_code_1_where_asked_for(millstream: Millstream, api: Api) -> None:
    id = millstream("job", "submit", "--type", "noop").out.strip()
    tenant = api.rows("SELECT tenant FROM api.job_request WHERE execution_id = %s", id)[0][0]
    failed = ExecutionFailed(
        **facts(id, 2, tenant), reason="bad", message="it broke", step=None, dead_letter=None
    )
    api.project([accepted(id, tenant), failed])
    assert millstream("job", "watch", id).code == 0
    ran = millstream("job", "watch", id, "--exit-status")
    assert ran.code == 1 and "it broke" in ran.out
    assert "bad: it broke" in millstream("job", "get", id).out


# ---------------------------------------------------------------- rerun, and a manager that takes its time


@pytest.fixture
def ended(millstream: Millstream, api: Api, monkeypatch: pytest.MonkeyPatch) -> str:
    """An execution that has failed; no command of the test is answered at once."""
    monkeypatch.setattr(commands, "ANSWER_WITHIN_S", 0.0)
    monkeypatch.setattr(commanding, "ASK_AGAIN_S", 0.05)
    id = millstream("job", "submit", "--type", "noop").out.strip()
    tenant = api.rows("SELECT tenant FROM api.job_request WHERE execution_id = %s", id)[0][0]
    failed = ExecutionFailed(**facts(id, 2, tenant), reason="r", message="m", step=None, dead_letter=None)
    api.project([accepted(id, tenant), failed])
    return id


def command_of(api: Api, id: str) -> ExecutionCommand:
    found: list[ExecutionCommand] = until(
        lambda: [c for c in api.outgoing("execution.commands") if c.execution_id == id], 20, "the command"
    )
    return found[0]


def test_a_rerun_that_nobody_has_answered_yet_is_named(millstream: Millstream, ended: str) -> None:
    ran = millstream("job", "rerun", ended)
    assert (ran.code, ran.out.strip()) == (0, ids.rerun_id(ended, 1))
    assert "not done yet" in ran.err


def test_a_rerun_is_waited_for_though_its_answer_takes_time(
    millstream: Millstream, api: Api, ended: str
) -> None:
    def manage() -> None:
        command = command_of(api, ended)
        new = command.rerun_id
        assert new is not None
        of = facts(ended, 3, command.tenant) | {"causation_id": command.command_id}
        done = ExecutionCompleted(**facts(new, 2, command.tenant), files=0, rows=0, bytes=0)
        story: list[Event] = [ExecutionRerun(**of, rerun_id=new, requested_by=command.requested_by)]
        api.project([*story, accepted(new, command.tenant), done])

    with ThreadPoolExecutor(1) as pool:
        managing = pool.submit(manage)
        ran = millstream("job", "rerun", ended, "--wait", "--json")
        managing.result(30)
    assert f"stored as {ids.rerun_id(ended, 1)}, not done yet" in ran.err
    assert (ran.code, ran.json["execution_id"], ran.json["status"]) == (
        0,
        ids.rerun_id(ended, 1),
        "completed",
    )


def test_a_rerun_that_is_refused_later_ends_the_wait(millstream: Millstream, api: Api, ended: str) -> None:
    def manage() -> None:
        command = command_of(api, ended)
        of = facts(ended, 3, command.tenant) | {"causation_id": command.command_id}
        of |= {"command": "rerun", "requested_by": command.requested_by}
        api.project([CommandRefused(**of, reason="too_many", message="no more of them")])

    with ThreadPoolExecutor(1) as pool:
        managing = pool.submit(manage)
        ran = millstream("job", "rerun", ended, "--wait")
        managing.result(30)
    assert ran.code == 1 and "too_many: no more of them" in ran.err
