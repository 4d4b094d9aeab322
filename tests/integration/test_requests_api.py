"""/v1/requests and /v1/approvals: creation, views in S3's words, commands. The manager is played here."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from services import jobs
from services.api.openapi import COMMANDS
from services.cli import sample
from services.contracts import events
from services.contracts.commands import ExecutionCommand
from services.contracts.events import Event
from tests.serving import Api, facts
from tests.waiting import until

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).parents[2]

CALL = {"method": "POST", "url": "https://api.example/post?q=${to}", "data": {"n": "${n}"}, "headers": {}}
PIPELINE: dict[str, Any] = {
    "form": [
        {"name": "to", "type": "string", "max_length": 20},
        {"name": "n", "type": "integer", "default": 7},
        {"name": "api_token", "type": "string", "required": False},
    ],
    "steps": [
        {
            "step_name": "ask",
            "step_type": "WAIT_FOR_APPROVAL",
            "next_step_name": "Make API Call",
            "parameters": {"groups": ["finance"], "quorum": 2},
        },
        {
            "step_name": "Make API Call",
            "step_type": "API",
            "prev_step_name": "ask",
            "parameters": CALL,
            "is_terminal_step": True,
        },
    ],
    "priority": "high",
    "timeout_s": 3600,
    "limits": [{"key": "pipeline", "max": 2}],
}
VALUES = {"to": "Ada", "api_token": "hush-hush"}


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client(api.key(owner="ada", groups=["sales"])) as made:
        made.put("/v1/pipelines/calls", json=PIPELINE).raise_for_status()
        yield made


def create(client: httpx.Client, **more: Any) -> str:
    answer = client.post("/v1/requests", json={"pipeline": "calls", "values": VALUES, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def accept(api: Api, id: str) -> None:
    """What the manager says first."""
    (asked,) = [record for record in api.outgoing("job.requested") if record.execution_id == id]
    api.project(
        [events.ExecutionAccepted(**facts(id, 1), request=asked, request_hash="h", plan=jobs.plan(asked))]
    )


def wait_for_approval(api: Api, id: str, **detail: Any) -> None:
    asked = {"approvers": [], "groups": ["finance"], "quorum": 2, "form": [], "on_expiry": "fail", **detail}
    step: dict[str, Any] = {"step": "ask", "reason": "approval", "until": None}
    api.project(
        [
            events.ExecutionStarted(**facts(id, 2)),
            events.StepWaiting(**facts(id, 3), attempt=1, content_hash="c1", detail=asked, **step),
            events.ExecutionWaiting(**facts(id, 4), **step),
        ]
    )


def given(api: Api, id: str) -> list[ExecutionCommand]:
    return [record for record in api.outgoing("execution.commands") if record.execution_id == id]


def faults(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 400, answer.text
    return [error["pointer"] for error in answer.json()["errors"]]


def test_the_examples_can_be_stored_and_asked_for_as_the_page_says(client: httpx.Client) -> None:
    def put(path: str, file: str) -> None:
        content = (ROOT / "examples" / file).read_bytes()
        headers = {"Content-Type": "application/yaml"}
        client.put(f"/v1/{path}", content=content, headers=headers).raise_for_status()

    client.put(f"/v1/datasets/{sample.DATASET_ID}", json=sample.DATASET).raise_for_status()
    put("datasets/bookings", "bookings.yaml")
    put("pipelines/refund", "pipelines/refund.yaml")
    put("pipelines/orders", "pipelines/orders.yaml")
    (asked,) = re.findall(
        r"^POST /v1/requests +({.*}) +202", (ROOT / "docs/requests.md").read_text("utf-8"), re.MULTILINE
    )
    assert client.post("/v1/requests", json=json.loads(asked)).status_code == 202


def test_what_is_asked_for_carries_everything(api: Api, client: httpx.Client) -> None:
    answer = client.post(
        "/v1/requests",
        json={
            "pipeline": "calls",
            "values": VALUES,
            "tag": "spring",
            "callback": {"url": "https://x.example/"},
        },
    )
    id = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/requests/{id}"
    assert (answer.json()["status"], answer.json()["execution_id"]) == ("Not Started", id)
    (record,) = [record for record in api.outgoing("job.requested") if record.execution_id == id]
    assert (record.job_type, record.name, record.created_by, record.owner) == (
        "pipeline",
        "calls",
        "alice",
        "ada",
    )
    assert record.parameters == {
        "values": {"to": "Ada", "n": 7, "api_token": "hush-hush"},
        "time_range": None,
    }
    assert (record.priority, record.timeout_s, record.hold) == (2, 3600, False)
    assert record.limits == [{"key": "pipeline:calls", "max": 2, "holds_paused": False}]
    assert (record.definition.kind, record.definition.id, record.definition.revision) == (
        "pipeline",
        "calls",
        1,
    )


def test_the_same_by_the_route_of_all_executions(api: Api, client: httpx.Client) -> None:
    body = {
        "jobType": "pipeline",
        "pipeline": "calls",
        "values": {"to": "x"},
        "start": False,
        "priority": "low",
    }
    answer = client.post("/v1/executions", json=body)
    id = answer.json()["execution_id"]
    (record,) = [record for record in api.outgoing("job.requested") if record.execution_id == id]
    assert (record.hold, record.priority, record.parameters["values"]["to"]) == (True, 0, "x")
    assert client.get(f"/v1/requests/{id}").json()["pipeline"] == {"id": "calls", "revision": 1}


def test_a_request_pins_its_revision(api: Api, client: httpx.Client) -> None:
    client.put("/v1/pipelines/pinned", json=PIPELINE).raise_for_status()
    other = {**PIPELINE, "description": "another"}
    client.put("/v1/pipelines/pinned", json=other).raise_for_status()
    old, new = create(client, pipeline="pinned", revision=1), create(client, pipeline="pinned")
    assert client.get(f"/v1/requests/{old}").json()["pipeline"] == {"id": "pinned", "revision": 1}
    assert client.get(f"/v1/requests/{new}").json()["pipeline"] == {"id": "pinned", "revision": 2}


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"values": {}}, ["pipeline"]),
        ({"pipeline": "none", "values": {}}, ["pipeline"]),
        ({"pipeline": "calls", "revision": 9, "values": VALUES}, ["pipeline"]),
        ({"pipeline": "calls"}, ["values.to"]),
        (
            {"pipeline": "calls", "values": {"to": 5, "n": "x", "more": 1}},
            ["values.more", "values.to", "values.n"],
        ),
        ({"pipeline": "calls", "values": {"to": "x" * 21}}, ["values.to"]),
        (
            {"pipeline": "calls", "values": [], "priority": "top", "start": 1, "revision": 0, "dataset": "d"},
            ["dataset", "revision", "values", "priority", "start"],
        ),
    ],
)
def test_bad_requests_name_every_fault(client: httpx.Client, body: Any, pointers: list[str]) -> None:
    assert faults(client.post("/v1/requests", json=body)) == pointers


def test_other_job_types_have_no_pipeline(client: httpx.Client) -> None:
    body = {"jobType": "noop", "pipeline": "calls", "values": {}}
    assert faults(client.post("/v1/executions", json=body)) == ["pipeline", "values"]
    body = {"jobType": "pipeline", "pipeline": "calls", "values": VALUES, "params": {}}
    assert faults(client.post("/v1/executions", json=body)) == ["params"]


def test_the_same_key_and_body_is_the_same_request(client: httpx.Client) -> None:
    body, key = {"pipeline": "calls", "values": VALUES}, {"Idempotency-Key": "k1"}
    first = client.post("/v1/requests", json=body, headers=key)
    assert client.post("/v1/requests", json=body, headers=key).json() == first.json()
    other = client.post("/v1/requests", json={**body, "tag": "other"}, headers=key)
    assert other.status_code == 409


def test_the_view_is_in_the_words_of_requests_and_hides_secrets(api: Api, client: httpx.Client) -> None:
    id = create(client, name="For Ada")
    accept(api, id)
    wait_for_approval(api, id)
    view = client.get(f"/v1/requests/{id}").json()
    assert (view["status"], view["name"], view["content_hash"]) == ("Pending", "For Ada", "c1")
    assert view["values"] == {"to": "Ada", "n": 7, "api_token": "***"}
    assert view["waiting"]["reason"] == "approval"
    assert view["waiting"]["approval"]["detail"]["groups"] == ["finance"]
    ask, call = view["steps"]
    assert (ask["step_name"], ask["step_type"], ask["status"]) == ("ask", "WAIT_FOR_APPROVAL", "Running")
    assert [event["event_type"] for event in ask["events"]] == ["Not Started", "Running"]
    assert [event["event_type"] for event in call["events"]] == ["Not Started"]
    assert "hush-hush" not in client.get(f"/v1/executions/{id}/events").text
    execution = client.get(f"/v1/executions/{id}").json()
    assert (execution["status"], execution["words"]["exhaust"]) == ("waiting", "PROCESSING")
    assert (execution["pipeline"], execution["dataset"]) == ({"id": "calls", "revision": 1}, None)
    with api.client(api.key(tenant="stranger")) as stranger:
        assert stranger.get(f"/v1/requests/{id}").status_code == 404
    noop = client.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
    assert client.get(f"/v1/requests/{noop}").status_code == 404


def test_lists_filter_by_words_and_pipeline(api: Api) -> None:
    with api.client(api.key(tenant="lists")) as client:
        for name in ("one", "two"):
            client.put(f"/v1/pipelines/{name}", json=PIPELINE).raise_for_status()
        ones = [create(client, pipeline="one") for _ in range(3)]
        two = create(client, pipeline="two", tag="two")
        client.post("/v1/executions", json={"jobType": "noop"})
        listed = client.get("/v1/requests").json()["items"]
        assert [item["id"] for item in listed] == [two, *reversed(ones)]
        found = client.get("/v1/requests", params={"pipeline": "one", "limit": 2}).json()
        assert [item["id"] for item in found["items"]] == [ones[2], ones[1]]
        assert [item["id"] for item in client.get(found["next"]).json()["items"]] == [ones[0]]
        waiting: dict[str, Any] = {"status": ["Not Started", "Pending"], "limit": 3}
        first = client.get("/v1/requests", params=waiting).json()
        assert len(first["items"]) == 3
        assert len(client.get(first["next"]).json()["items"]) == 1
        assert client.get("/v1/requests", params={"status": "Running"}).json()["items"] == []
        assert faults(client.get("/v1/requests", params={"status": "waiting"})) == ["status"]
        assert faults(client.get("/v1/requests", params={"colour": "red"})) == ["colour"]
        assert len(client.get("/v1/executions", params={"pipeline": "one"}).json()["items"]) == 3


def approvals(api: Api, **key: Any) -> list[str]:
    with api.client(api.key(**{"tenant": "desk", **key})) as client:
        return [item["request_id"] for item in client.get("/v1/approvals").json()["items"]]


def test_approvals_are_those_of_the_caller(api: Api) -> None:
    with api.client(api.key(tenant="desk", principal="bot", owner="ada")) as client:
        client.put("/v1/pipelines/calls", json=PIPELINE).raise_for_status()
        finance, anyone, named = (create(client) for _ in range(3))
    for id in (finance, anyone, named):
        (asked,) = [record for record in api.outgoing("job.requested") if record.execution_id == id]
        plan = jobs.plan(asked)
        of = facts(id, 1, "desk")
        api.project([events.ExecutionAccepted(**of, request=asked, request_hash="h", plan=plan)])
    for id, detail in (
        (finance, {}),
        (anyone, {"groups": None, "approvers": None}),
        (named, {"groups": [], "approvers": ["grace"]}),
    ):
        asked_for = {"approvers": [], "groups": ["finance"], "quorum": 2, "form": [], **detail}
        step: dict[str, Any] = {"step": "ask", "reason": "approval", "until": None}
        waits = {**facts(id, 2, "desk"), **step, "attempt": 1, "content_hash": "c"}
        api.project([events.StepWaiting(**waits, detail=asked_for)])
        api.project([events.ExecutionWaiting(**facts(id, 3, "desk"), **step)])
    assert approvals(api, principal="bob", role="viewer", groups=["finance"]) == [finance]
    assert approvals(api, principal="bob", role="operator") == [anyone]
    assert approvals(api, principal="grace", role="author") == [named]
    assert approvals(api, principal="robot", owner="grace", role="author") == [named]
    assert approvals(api, principal="ada", role="admin", groups=["finance"]) == []
    assert approvals(api, principal="other", owner="Ada", role="admin") == []
    assert approvals(api, principal="bob", tenant="stranger", role="admin", groups=["finance"]) == []
    decided: dict[str, Any] = {"decision": "approved", "decided_by": "grace", "owner": None, "reason": None}
    of_one: dict[str, Any] = {"form": {}, "content_hash": "c", "approvals": 1, "quorum": 2}
    api.project([events.ApprovalDecided(**facts(named, 4, "desk"), step="ask", **decided, **of_one)])
    assert approvals(api, principal="grace", role="author") == []


def because(command: ExecutionCommand, sequence: int) -> dict[str, Any]:
    return {**facts(command.execution_id, sequence), "causation_id": command.command_id}


def done(command: ExecutionCommand, sequence: int) -> Event:
    """The event by which a command of its kind is done."""
    of = because(command, sequence)
    by: dict[str, Any] = {"requested_by": command.requested_by}
    match COMMANDS[command.kind]:
        case "execution.started":
            return events.ExecutionStarted(**of)
        case "execution.cancelled":
            return events.ExecutionCancelled(**of, **by, reason=command.reason)
        case "execution.waiting":
            return events.ExecutionWaiting(**of, reason="paused", step=None, until=None)
        case "execution.resumed":
            return events.ExecutionResumed(**of, reason="paused")
        case "execution.rerun":
            return events.ExecutionRerun(**of, **by, rerun_id=command.rerun_id or "")
        case "execution.amended":
            parameters = {"values": command.values, "time_range": None}
            return events.ExecutionAmended(**of, **by, parameters=parameters, plan=())
        case "approval.remarked":
            remark: dict[str, Any] = {"remarked_by": command.requested_by, "remark": command.reason or ""}
            return events.ApprovalRemarked(**of, step=command.step or "", **remark)
        case _:
            return events.ApprovalDecided(
                **of,
                step=command.step or "",
                decision="approved" if command.kind == "approve" else "rejected",
                decided_by=command.requested_by,
                owner=command.owner,
                reason=command.reason,
                form=command.values,
                content_hash=command.content_hash,
                approvals=1,
                quorum=1,
            )


def refusing(reason: str) -> Callable[[ExecutionCommand, int], Event]:
    return lambda command, sequence: events.CommandRefused(
        **because(command, sequence),
        command=command.kind,
        requested_by=command.requested_by,
        reason=reason,
        message="for a reason",
    )


def answered(
    api: Api,
    client: httpx.Client,
    id: str,
    path: str,
    body: Any,
    answer: Callable[[ExecutionCommand, int], Event] = done,
) -> httpx.Response:
    """Post a command, and play the manager's part once it has left."""
    known = len(given(api, id))

    def manage() -> None:
        command = until(lambda: given(api, id)[known:], 10, "the command")[0]
        ((sequence,),) = api.rows("SELECT sequence FROM api.job_request WHERE execution_id = %s", id)
        api.project([answer(command, sequence + 1)])

    manager = threading.Thread(target=manage)
    manager.start()
    response = client.post(f"/v1/requests/{id}/{path}", json=body)
    manager.join(15)
    return response


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("start", {}, {}),
        ("cancel", {"reason": "no need"}, {"reason": "no need"}),
        ("pause", {}, {}),
        ("resume", {}, {}),
        ("rerun", {"fromFailed": True}, {"reuse_results": True, "definition": None}),
        ("amend", {"values": {"to": "Bob"}}, {"values": {"to": "Bob", "n": 7}}),
        (
            "steps/ask/approve",
            {"remark": "fine", "form": {"a": 1}, "contentHash": "c1"},
            {"step": "ask", "reason": "fine", "values": {"a": 1}, "content_hash": "c1"},
        ),
        ("steps/ask/reject", {"reason": "no"}, {"step": "ask", "reason": "no"}),
        ("steps/ask/remark", {"remark": "hm"}, {"step": "ask", "reason": "hm"}),
    ],
)
def test_a_command_is_answered_by_its_event(
    api: Api, client: httpx.Client, path: str, body: Any, told: dict[str, Any]
) -> None:
    id = create(client, start=False)
    accept(api, id)
    answer = answered(api, client, id, path, body)
    (command,) = given(api, id)
    assert (answer.status_code, answer.json()["answer"]) == (200, COMMANDS[command.kind])
    assert {name: getattr(command, name) for name in told} == told
    assert (command.requested_by, command.owner, command.role, command.groups) == (
        "alice",
        "ada",
        "operator",
        ("sales",),
    )


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("self_approval", 409),
        ("already_decided", 409),
        ("content_changed", 409),
        ("bad_form", 422),
        ("reason_required", 422),
    ],
)
def test_a_refusal_tells_why(api: Api, client: httpx.Client, reason: str, status: int) -> None:
    id = create(client)
    accept(api, id)
    answer = answered(api, client, id, "steps/ask/approve", {}, refusing(reason))
    assert (answer.status_code, answer.json()["detail"]) == (status, f"{reason}: for a reason")


def test_a_rerun_may_take_the_newest_revision(api: Api, client: httpx.Client) -> None:
    client.put("/v1/pipelines/moving", json=PIPELINE).raise_for_status()
    id = create(client, pipeline="moving")
    accept(api, id)
    client.put("/v1/pipelines/moving", json={**PIPELINE, "description": "new"}).raise_for_status()
    answer = answered(api, client, id, "rerun", {"revision": "latest"})
    (command,) = given(api, id)
    assert command.definition is not None
    assert (command.definition.revision, command.definition.body["description"]) == (2, "new")
    rerun = answer.json()["rerun_id"]
    view = client.get(f"/v1/requests/{rerun}").json()
    assert (view["rerun_of"], view["pipeline"]["revision"]) == (id, 1), "as far as is known"
    (first,) = [record for record in api.outgoing("job.requested") if record.execution_id == id]
    asked = structs.replace(first, execution_id=rerun, definition=command.definition, rerun_of=id)
    api.project(
        [events.ExecutionAccepted(**facts(rerun, 1), request=asked, request_hash="h", plan=jobs.plan(asked))]
    )
    assert client.get(f"/v1/requests/{rerun}").json()["pipeline"]["revision"] == 2
    client.delete("/v1/pipelines/moving").raise_for_status()
    gone = client.post(f"/v1/requests/{id}/rerun", json={"revision": "latest"})
    assert faults(gone) == ["revision"]


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("rerun", {"fromFailed": 1, "revision": "next"}, ["fromFailed", "revision"]),
        ("amend", {}, ["values"]),
        ("amend", {"values": {"to": 1}}, ["values.to"]),
        ("steps/ask/approve", {"reason": "x", "form": []}, ["reason", "form"]),
        ("start", {"now": True}, ["now"]),
    ],
)
def test_bad_commands_are_never_sent(
    api: Api, client: httpx.Client, path: str, body: Any, pointers: list[str]
) -> None:
    id = create(client, start=False)
    assert faults(client.post(f"/v1/requests/{id}/{path}", json=body)) == pointers
    assert given(api, id) == []


def test_commands_of_others_are_never_sent(api: Api, client: httpx.Client) -> None:
    id = create(client)
    noop = client.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
    with api.client(api.key(tenant="stranger")) as stranger:
        assert stranger.post(f"/v1/requests/{id}/start").status_code == 404
        assert stranger.post(f"/v1/requests/{id}/steps/ask/approve").status_code == 404
        assert stranger.post(f"/v1/requests/{id}/amend", json={"values": {}}).status_code == 404
    with api.client(api.key("viewer")) as viewer:
        assert viewer.post(f"/v1/requests/{id}/cancel").status_code == 403
    for path in ("start", "steps/noop/approve"):
        assert client.post(f"/v1/requests/{noop}/{path}").status_code == 404
    assert client.post("/v1/requests/none/start").status_code == 404
    assert given(api, id) == []


def test_a_key_names_one_command_of_one_step(api: Api, client: httpx.Client) -> None:
    id = create(client)
    accept(api, id)
    command = answered(api, client, id, "steps/ask/remark", {"remark": "hm"}).json()
    assert command["kind"] == "remark"
    key = {"Idempotency-Key": "once"}
    threads = [
        threading.Thread(target=client.post, args=(f"/v1/requests/{id}/pause",), kwargs={"headers": key})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    paused = until(lambda: [c for c in given(api, id) if c.kind == "pause"], 10, "the command")
    ((sequence,),) = api.rows("SELECT sequence FROM api.job_request WHERE execution_id = %s", id)
    api.project([done(paused[0], sequence + 1)])
    for thread in threads:
        thread.join(15)
    assert len([c for c in given(api, id) if c.kind == "pause"]) == 1
    assert client.get(f"/v1/requests/{id}").json()["status"] == "Pending"


def test_an_amendment_is_shown_and_its_author_cannot_approve(api: Api) -> None:
    with api.client(api.key(tenant="acme", principal="carl")) as carl:
        carl.put("/v1/pipelines/calls", json=PIPELINE).raise_for_status()
        id = create(carl)
        accept(api, id)
        wait_for_approval(api, id, groups=[], approvers=[])
        answered(api, carl, id, "amend", {"values": {"to": "Eve"}})
        view = carl.get(f"/v1/requests/{id}").json()
        assert view["values"] == {"to": "Eve", "n": 7}
        assert view["waiting"]["approval"]["not_by"] == ["carl"]
