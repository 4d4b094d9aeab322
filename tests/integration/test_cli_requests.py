"""`millstream pipeline` and `millstream request` against a served api: output, exit codes, JSON."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services import jobs
from services.api.openapi import COMMANDS
from services.contracts import events
from services.contracts.commands import File
from services.runtime.entropy import LocalClock
from tests.commanding import Millstream, Ran
from tests.serving import Api, facts
from tests.waiting import until

pytestmark = pytest.mark.postgres

DEFINITION = """\
form:
  - {name: to, type: string}
steps:
  - step_name: ask
    step_type: WAIT_FOR_APPROVAL
    next_step_name: rest
  - step_name: rest
    step_type: NOOP
    prev_step_name: ask
    is_terminal_step: true
"""


@pytest.fixture
def tenant(tmp_path: Path) -> str:
    return tmp_path.name.replace("_", "-")[:60]


@pytest.fixture
def millstream(api: Api, tmp_path: Path, tenant: str) -> Millstream:
    """The command for a new tenant of the test's own, with a definition at hand."""
    (tmp_path / "calls.yaml").write_text(DEFINITION, encoding="utf-8")
    key = api.key("operator", tenant=tenant)
    return Millstream(tmp_path, {"MILLSTREAM_CLIENT__URL": api.url, "MILLSTREAM_CLIENT__KEY": key})


def put(millstream: Millstream) -> None:
    assert millstream("pipeline", "put", "calls", "calls.yaml").out == "calls revision 1\n"


def create(millstream: Millstream, *more: str) -> str:
    return millstream("request", "create", "calls", "--value", "to=Ada", *more).out.strip()


def waiting(api: Api, id: str, tenant: str) -> None:
    """The manager's first words: it waits for an approval."""
    (asked,) = [record for record in api.outgoing("job.requested") if record.execution_id == id]
    step: dict[str, Any] = {"step": "ask", "reason": "approval", "until": None}
    detail = {"approvers": [], "groups": [], "quorum": 1, "form": []}
    first, second, third = (facts(id, sequence, tenant) for sequence in (1, 2, 3))
    api.project(
        [
            events.ExecutionAccepted(**first, request=asked, request_hash="h", plan=jobs.plan(asked)),
            events.StepWaiting(**second, **step, attempt=1, content_hash="c", detail=detail),
            events.ExecutionWaiting(**third, **step),
        ]
    )


def answered(api: Api, millstream: Millstream, id: str, tenant: str, *words: str, refuse: str = "") -> Ran:
    """Run a command, and play the manager's part."""

    def left() -> list[Any]:
        return [record for record in api.outgoing("execution.commands") if record.execution_id == id]

    known = len(left())

    def manage() -> None:
        command = until(lambda: left()[known:], 10, "the command")[0]
        ((sequence,),) = api.rows("SELECT sequence FROM api.job_request WHERE execution_id = %s", id)
        of = {**facts(id, sequence + 1, tenant), "causation_id": command.command_id}
        by = {"command": command.kind, "requested_by": "alice", "reason": refuse, "message": "m"}
        told = events.TYPES["command.refused" if refuse else COMMANDS[command.kind]]
        said: dict[str, Any] = {
            "reason": command.reason or "paused",
            "until": None,
            "requested_by": "alice",
            "rerun_id": command.rerun_id,
            "step": command.step,
            "decision": "approved",
            "decided_by": "alice",
            "owner": None,
            "form": command.values,
            "content_hash": None,
            "approvals": 1,
            "quorum": 1,
            "remarked_by": "alice",
            "remark": command.reason,
            "parameters": {"values": {}},
            "plan": (),
            **(by if refuse else {}),
        }
        fields = {name: said[name] for name in told.__struct_fields__ if name in said and name not in of}
        api.project([told(**of, **fields)])

    manager = threading.Thread(target=manage)
    manager.start()
    ran = millstream("request", *words)
    manager.join(15)
    return ran


def test_a_definition_is_checked_without_an_api(millstream: Millstream, tmp_path: Path) -> None:
    ran = millstream("pipeline", "check", "calls.yaml")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "calls.yaml: 2 steps, first ask")
    assert "to (string)" in ran.out
    assert millstream("pipeline", "check", "calls.yaml", "--json").json == []
    (tmp_path / "bad.yaml").write_text(DEFINITION.replace("NOOP", "FLY").replace("string", "rope"))
    ran = millstream("pipeline", "check", "bad.yaml")
    assert ran.code == 1 and "form[0].type" in ran.err and "steps[1].step_type" in ran.err
    assert ran.err.startswith("bad.yaml: 2 faults\n")
    ran = millstream("pipeline", "check", "bad.yaml", "--json")
    assert (ran.code, [fault["pointer"] for fault in ran.json]) == (1, ["steps[1].step_type", "form[0].type"])
    (tmp_path / "one.yaml").write_text("steps: [{step_name: a, step_type: FLY}]")
    assert millstream("pipeline", "check", "one.yaml").err.startswith("one.yaml: 1 fault\n")
    assert millstream("pipeline", "check", "none.yaml").code == 2


def test_pipelines_are_put_shown_listed_deleted(millstream: Millstream, tmp_path: Path) -> None:
    assert "pipeline put" in millstream("pipeline", "list").err
    put(millstream)
    assert millstream("pipeline", "put", "calls", "calls.yaml", "--new").code == 1
    text = millstream("pipeline", "get", "calls")
    assert "step_name: ask" in text.out and "revision 1" in text.err
    stored = millstream("pipeline", "get", "calls", "--json").json
    again = millstream("pipeline", "put", "calls", "calls.yaml", "--if-match", stored["etag"], "--json").json
    assert again == stored
    assert [item["id"] for item in millstream("pipeline", "list", "--jsonl").json_lines] == ["calls"]
    assert "calls" in millstream("pipeline", "list").out
    assert millstream("pipeline", "delete", "calls").out == "calls deleted\n"
    heading, *rows = [line.split() for line in millstream("pipeline", "revisions", "calls").out.splitlines()]
    assert heading == ["REVISION", "BY", "CHANGED", "STATE"]
    assert [(row[0], row[-1]) for row in rows] == [("2", "deleted"), ("1", "stored")]
    assert [r["deleted"] for r in millstream("pipeline", "revisions", "calls", "--json").json] == [
        True,
        False,
    ]
    assert millstream("pipeline", "get", "calls").code == 1


def test_requests_are_created_and_listed(millstream: Millstream, tmp_path: Path) -> None:
    put(millstream)
    assert "request create" in millstream("request", "list").err
    id = create(millstream, "--hold", "--name", "first", "--priority", "low")
    found = millstream("request", "get", id, "--json").json
    assert (found["status"], found["name"]) == ("Not Started", "first")
    assert "Not Started" in millstream("request", "list", "--pipeline", "calls").out
    (tmp_path / "request.yaml").write_text("pipeline: calls\nvalues: {to: Eve}\n")
    accepted = millstream("request", "create", "-f", "request.yaml", "--json").json
    ids = [item["id"] for item in millstream("request", "list", "--json").json]
    assert ids == [accepted["id"], id]
    assert millstream("request", "list", "--status", "Running", "--json").json == []
    assert millstream("request", "create").code == 2
    ran = millstream("request", "create", "calls", "--value", "two=1")
    assert ran.code == 1 and "values.to" in ran.err and "values.two" in ran.err


def accept(api: Api, id: str, tenant: str) -> None:
    (asked,) = [record for record in api.outgoing("job.requested") if record.execution_id == id]
    told = facts(id, 1, tenant)
    api.project([events.ExecutionAccepted(**told, request=asked, request_hash="h", plan=jobs.plan(asked))])


def test_one_that_has_not_begun_says_what_it_waits_for(api: Api, millstream: Millstream, tenant: str) -> None:
    put(millstream)
    later = LocalClock().now() + timedelta(hours=1)
    for option, told in (
        (("--hold",), "waits for  the command start"),
        (("--at", later.isoformat()), f"waits for  a delayed start until {later:%Y-%m-%d %H:%M:%S}Z"),
        (("--at", "2026-01-01T00:00:00Z"), ""),
    ):
        id = create(millstream, *option)
        accept(api, id, tenant)
        shown = millstream("request", "get", id).out.splitlines()
        assert [line for line in shown if line.startswith("waits for")] == [told] * bool(told)
    api.project([events.ExecutionCancelled(**facts(id, 2, tenant), requested_by="alice", reason=None)])


def test_what_waits_says_so_before_it_is_followed(api: Api, millstream: Millstream, tenant: str) -> None:
    put(millstream)
    id = create(millstream, "--hold")
    accept(api, id, tenant)

    def end() -> None:
        until(lambda: api.parts.live.watching(id), 10, "somebody who follows it")
        api.project([events.ExecutionCancelled(**facts(id, 2, tenant), requested_by="alice", reason=None)])

    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(end)
        ran = millstream("request", "watch", id)
        ending.result(30)
    assert ran.err.startswith("waits for the command start\n")


def test_files_and_content_are_shown(api: Api, millstream: Millstream, tenant: str) -> None:
    put(millstream)
    id = create(millstream)
    waiting(api, id, tenant)
    assert "content    c\n" in millstream("request", "get", id).out
    file = File(name="a.csv", key="k", batch=None, rows=1, bytes=1, sha256="s", content_type="text/csv")
    api.project([events.FilePublished(**facts(id, 4, tenant), step="rest", file=file)])
    shown = millstream("request", "get", id)
    assert "a.csv" in shown.out and f"millstream job download {id}" in shown.err


def test_approvals_are_found_and_decided(api: Api, millstream: Millstream, tenant: str) -> None:
    put(millstream)
    id = create(millstream)
    assert millstream("request", "approve", id).code == 1
    waiting(api, id, tenant)
    assert "approval of ask" in millstream("request", "get", id).out
    assert "nothing waits" in millstream("request", "approvals").err, "it is their own"
    boss = {**millstream.environ, "MILLSTREAM_CLIENT__KEY": api.key("admin", tenant, "boss")}
    by_boss = Millstream(millstream.folder, boss)
    assert [item["request_id"] for item in by_boss("request", "approvals", "--json").json] == [id]
    assert id in by_boss("request", "approvals").out
    ran = answered(api, by_boss, id, tenant, "remark", id, "hm")
    assert (ran.code, ran.out) == (0, f"{id} ask remarked\n")
    ran = answered(api, by_boss, id, tenant, "approve", id, "--step", "ask", refuse="self_approval")
    assert ran.code == 1 and "self_approval" in ran.err
    ran = answered(api, by_boss, id, tenant, "approve", id, "--form", "n=1", "--remark", "fine")
    assert (ran.code, ran.out) == (0, f"{id} ask approved\n")
    assert "fine" in by_boss("request", "get", id).out
    assert millstream("request", "reject", id).code == 2, "a reason is asked for"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start",), "started"),
        (("pause",), "paused"),
        (("resume",), "resumed"),
        (("amend", "--value", "to=Bob"), "amended"),
        (("cancel", "--reason", "no"), "cancelled"),
    ],
)
def test_commands(api: Api, millstream: Millstream, tenant: str, words: tuple[str, ...], said: str) -> None:
    put(millstream)
    id = create(millstream, "--hold")
    waiting(api, id, tenant)
    ran = answered(api, millstream, id, tenant, words[0], id, *words[1:])
    assert (ran.code, ran.out) == (0, f"{id} {said}\n"), ran.err


def test_a_rerun_prints_the_new_id(api: Api, millstream: Millstream, tenant: str) -> None:
    put(millstream)
    id = create(millstream)
    waiting(api, id, tenant)
    ran = answered(api, millstream, id, tenant, "rerun", id, "--from-failed", "--latest")
    (command,) = [record for record in api.outgoing("execution.commands") if record.execution_id == id]
    assert (ran.code, ran.out.strip()) == (0, command.rerun_id)
    assert command.reuse_results and command.definition is not None


def test_watching_ends_with_what_became_of_it(api: Api, millstream: Millstream, tenant: str) -> None:
    put(millstream)
    id = create(millstream)
    waiting(api, id, tenant)
    api.project([events.ExecutionCancelled(**facts(id, 4, tenant), requested_by="alice", reason=None)])
    ran = millstream("request", "watch", id, "--exit-status")
    assert ran.code == 1 and "execution.waiting" in ran.out and "execution.cancelled" in ran.out
    assert millstream("request", "watch", id, "--json").json["status"] == "Cancelled"
    assert len(millstream("request", "watch", id, "--jsonl").json_lines) == 4
