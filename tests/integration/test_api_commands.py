"""Cancel and rerun over HTTP: what is stored, and every answer. The manager is played here."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from services.api import republish
from services.contracts import events, ids
from services.contracts.commands import ExecutionCommand
from services.contracts.events import Event
from tests.serving import Api, accepted, facts
from tests.waiting import until

pytestmark = pytest.mark.postgres

Answering = Callable[[ExecutionCommand, int], Event]


@pytest.fixture
def id(api: Api, id: str) -> str:
    """An execution that runs."""
    api.project([accepted(id), events.ExecutionStarted(**facts(id, 2))])
    return id


def because(command: ExecutionCommand, sequence: int) -> dict[str, Any]:
    return {**facts(command.execution_id, sequence), "causation_id": command.command_id}


def cancelled(command: ExecutionCommand, sequence: int) -> Event:
    return events.ExecutionCancelled(
        **because(command, sequence), requested_by=command.requested_by, reason=command.reason
    )


def begun_again(command: ExecutionCommand, sequence: int) -> Event:
    assert command.rerun_id is not None
    return events.ExecutionRerun(
        **because(command, sequence), rerun_id=command.rerun_id, requested_by=command.requested_by
    )


def refused(command: ExecutionCommand, sequence: int) -> Event:
    return events.CommandRefused(
        **because(command, sequence),
        command=command.kind,
        requested_by=command.requested_by,
        reason="ended",
        message="the execution has ended: completed",
    )


def completed(api: Api, id: str) -> None:
    api.project([events.ExecutionCompleted(**facts(id, 3), files=0, rows=0, bytes=0)])


def given(api: Api, id: str) -> list[ExecutionCommand]:
    """The commands on their way to the manager."""
    return [record for record in api.outgoing("execution.commands") if record.execution_id == id]


def answered(api: Api, id: str, path: str, answer: Answering, **options: Any) -> httpx.Response:
    """Post a command, and play the manager's part once it has left."""

    known = len(given(api, id))

    def manage() -> None:
        command = until(lambda: given(api, id)[known:], 10, "the command")[0]
        ((sequence,),) = api.rows("SELECT sequence FROM api.job_request WHERE execution_id = %s", id)
        api.project([answer(command, sequence + 1)])

    manager = threading.Thread(target=manage)
    manager.start()
    with api.client() as client:
        response = client.post(f"/v1/executions/{id}/{path}", **options)
    manager.join(15)
    return response


def test_a_cancel_is_answered_when_it_is_done(api: Api, client: httpx.Client, id: str) -> None:
    answer = answered(api, id, "cancel", cancelled, json={"reason": "no need any more"})
    (command,) = given(api, id)
    assert (answer.status_code, answer.elapsed.total_seconds() < 4) == (200, True)
    assert answer.json() == {
        "command_id": command.command_id,
        "execution_id": id,
        "kind": "cancel",
        "answer": "execution.cancelled",
        "rerun_id": None,
        "links": {"self": f"/v1/executions/{id}", "events": f"/v1/executions/{id}/events"},
    }
    assert (command.tenant, command.requested_by, command.reason) == ("acme", "alice", "no need any more")
    view = client.get(f"/v1/executions/{id}").json()
    assert (view["status"], view["words"]["exhaust"]) == ("cancelled", "CANCELLED")
    assert api.rows("SELECT record, answer FROM api.command WHERE execution_id = %s", id) == [
        (None, "execution.cancelled")
    ]


def test_what_has_ended_is_not_cancelled(api: Api, client: httpx.Client, id: str) -> None:
    completed(api, id)
    answer = client.post(f"/v1/executions/{id}/cancel")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:millstream:problem:command-refused")
    assert "completed" in answer.json()["detail"]
    assert given(api, id) == []


def test_the_managers_refusal_is_a_409(api: Api, id: str) -> None:
    answer = answered(api, id, "cancel", refused)
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "ended: the execution has ended: completed",
    )


def test_a_rerun_is_a_new_execution_known_at_once(api: Api, client: httpx.Client, id: str) -> None:
    completed(api, id)
    answer = answered(api, id, "rerun", begun_again, json={"reuseResults": True})
    (command,) = given(api, id)
    assert (answer.status_code, command.reuse_results) == (200, True)
    rerun_id = answer.json()["rerun_id"]
    assert rerun_id == command.rerun_id == ids.rerun_id(id, 1)
    first = client.get(f"/v1/executions/{rerun_id}").json()
    assert (first["status"], first["rerun_of"], first["name"]) == ("pending", id, "noop")
    original = client.get(f"/v1/executions/{id}").json()
    assert (original["status"], original["reruns"]) == ("completed", [rerun_id])

    api.project([accepted(rerun_id, rerun_of=id), events.ExecutionStarted(**facts(rerun_id, 2))])
    later = client.get(f"/v1/executions/{rerun_id}").json()
    assert (later["status"], later["rerun_of"]) == ("running", id)
    again = answered(api, id, "rerun", begun_again).json()["rerun_id"]
    assert again == ids.rerun_id(id, 2)
    assert client.get(f"/v1/executions/{id}").json()["reruns"] == [rerun_id, again]


def test_a_rerun_whose_events_come_first_keeps_them(api: Api, client: httpx.Client, id: str) -> None:
    completed(api, id)
    rerun_id = ids.rerun_id(id, 1)
    api.project([accepted(rerun_id, rerun_of=id), events.ExecutionStarted(**facts(rerun_id, 2))])
    answered(api, id, "rerun", begun_again)
    view = client.get(f"/v1/executions/{rerun_id}").json()
    assert (view["status"], view["rerun_of"], view["sequence"]) == ("running", id, 2)


def test_without_an_answer_it_is_a_202_and_the_key_asks_again(
    api: Api, client: httpx.Client, id: str
) -> None:
    headers = {"Idempotency-Key": "once"}
    waiting = client.post(f"/v1/executions/{id}/cancel", headers=headers)
    assert (waiting.status_code, waiting.json()["answer"]) == (202, None)
    assert waiting.headers["location"] == f"/v1/executions/{id}/events"
    assert waiting.elapsed.total_seconds() >= 5
    (command,) = given(api, id)
    api.project([cancelled(command, 3)])
    done = client.post(f"/v1/executions/{id}/cancel", headers=headers)
    assert (done.status_code, done.json()["command_id"]) == (200, command.command_id)
    other = client.post(f"/v1/executions/{id}/cancel", headers=headers, json={"reason": "x"})
    assert (other.status_code, other.json()["type"]) == (409, "urn:millstream:problem:idempotency-conflict")
    assert len(given(api, id)) == 1


def test_the_same_key_at_once_is_one_rerun(api: Api, id: str) -> None:
    completed(api, id)
    headers = {"Idempotency-Key": "once"}

    def ask(_: int) -> httpx.Response:
        with api.client() as client:
            return client.post(f"/v1/executions/{id}/rerun", headers=headers)

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, n) for n in range(8)]
        command = until(lambda: given(api, id), 10, "the command")[0]
        until(lambda: api.parts.live.watching(id) == 8, 10, "all eight to wait")
        api.project([begun_again(command, 4)])
        answers = [future.result(15) for future in asked]
    assert {(a.status_code, a.json()["rerun_id"]) for a in answers} == {(200, ids.rerun_id(id, 1))}
    assert len(given(api, id)) == 1


@pytest.mark.parametrize("kind", ["cancel", "rerun"])
def test_another_tenants_execution_does_not_exist(api: Api, id: str, kind: str) -> None:
    with api.client(api.key(tenant="other")) as other:
        for unknown in (id, "0" * 40, "x"):
            assert other.post(f"/v1/executions/{unknown}/{kind}").status_code == 404
    with api.client(api.key("viewer")) as viewer:
        assert viewer.post(f"/v1/executions/{id}/{kind}").status_code == 403
    assert given(api, id) == []


@pytest.mark.parametrize(
    ("kind", "body", "pointer"),
    [
        ("cancel", {"reason": "x" * 501}, "reason"),
        ("cancel", {"reason": 1}, "reason"),
        ("cancel", {"reuseResults": True}, "reuseResults"),
        ("rerun", {"reuseResults": "yes"}, "reuseResults"),
        ("rerun", {"n": 3}, "n"),
        ("rerun", [], "body"),
    ],
)
def test_a_wrong_body_is_named(client: httpx.Client, id: str, kind: str, body: Any, pointer: str) -> None:
    answer = client.post(f"/v1/executions/{id}/{kind}", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, pointer)


def test_a_lost_log_is_filled_with_what_was_not_answered(api: Api, client: httpx.Client, id: str) -> None:
    answered(api, id, "cancel", cancelled)
    unanswered = client.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
    assert client.post(f"/v1/executions/{unanswered}/cancel").status_code == 202
    republish.compare(api.database_url, {"execution.commands": "one"})
    republish.compare(api.database_url, {"execution.commands": "other"})
    assert (len(given(api, id)), len(given(api, unanswered))) == (1, 2)
    first, again = given(api, unanswered)
    assert first == again
