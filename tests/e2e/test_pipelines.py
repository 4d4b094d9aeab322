"""Pipelines on a running system, told by what real receivers heard: S3's example, approvals, hooks, loops."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from services.contracts import ids
from tests import pipelining
from tests.commanding import Millstream
from tests.local import Local
from tests.receiver import Call, Receiver, receiving_aside, status
from tests.requesting import Requests, new_key, statuses
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "examples" / "pipelines"
OK = status(200, "Content-Type: application/json\r\n", b'{"n": 3}')
HEARD_WITHIN_S = 60.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Answers 200 to everything that is not scripted."""
    with receiving_aside() as made:
        made.otherwise = OK
        yield made


@pytest.fixture(scope="module")
def alice(local: Local) -> Iterator[Requests]:
    """Who asks."""
    made = Requests.of(local.state["api_url"], new_key(local.state["database_url"], "alice"))
    with closing(made.client):
        yield made


@pytest.fixture(scope="module")
def owner(local: Local) -> Iterator[Requests]:
    """Whose tenant may use the source."""
    made = Requests.of(local.state["api_url"], local.api_key)
    with closing(made.client):
        yield made


@pytest.fixture(scope="module")
def bob(local: Local) -> Iterator[Requests]:
    """Somebody else."""
    made = Requests.of(local.state["api_url"], new_key(local.state["database_url"], "bob"))
    with closing(made.client):
        yield made


def example(name: str) -> str:
    return (EXAMPLES / name).read_text(encoding="utf-8")


def call(name: str, url: str, /, **changes: Any) -> dict[str, Any]:
    """A step that calls this address."""
    return pipelining.api(name, parameters={"url": url}, **changes)


def logger(receiver: Receiver, *actions: str) -> dict[str, Any]:
    """A service `Log` whose actions call `/log/<action>` with the step's name."""
    named = {
        action: {
            "parameters": {
                "url": f"/{action}",
                "method": "GET",
                "query": {"task": {"$.execution.task": None}},
            }
        }
        for action in actions
    }
    return {"Log": {"type": "HTTP", "parameters": {"baseUrl": receiver.url("/log"), "actions": named}}}


def heard(receiver: Receiver, count: int) -> list[Call]:
    """Every call, once there are so many."""
    until(lambda: len(receiver.calls) >= count, HEARD_WITHIN_S, f"{count} calls")
    return [*receiver.calls]


# ---------------------------------------------------------------- S3


def test_the_example_of_an_api_step_works_as_it_stands(alice: Requests, receiver: Receiver) -> None:
    alice.put(
        "example", json.loads(example("make-api-call.json").replace("https://httpbin.org", receiver.url("")))
    )
    view = alice.ended(alice.make("example", {"query_param": "a b&c=ü", "value": 5}))
    assert (view["status"], statuses(view)) == ("Completed", {"Make API Call": "Completed"})
    [sent] = receiver.calls
    assert (sent.method, sent.target) == ("POST", "/post?q=a%20b%26c%3D%C3%BC")
    assert json.loads(sent.body) == {"key": 5}  # a number stays one
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["idempotency-key"] == ids.step_key(view["id"], "Make API Call", 1)
    words = [event["event_type"] for event in view["steps"][0]["events"]]
    assert words[0] == "Not Started" and words[-1] == "Completed" and {*words[1:-1]} == {"Running"}


def test_every_file_of_every_export_is_listed_and_downloaded(
    owner: Requests, local: Local, tmp_path: Path
) -> None:
    flights = (EXAMPLES.parent / "flights-report.yaml").read_bytes()
    yaml_type = {"Content-Type": "application/yaml"}
    owner.client.put("/v1/datasets/flights-report", content=flights, headers=yaml_type).raise_for_status()
    parameters = {"dataset": "flights-report", "columns": ["carrier"], "batches": ["HA"]}
    north = {"step_name": "north", "step_type": "EXPORT", "parameters": parameters}
    again = {"std:goto(north)": "$.result.rows > 0"}
    south = {**north, "step_name": "south", "prev_step_name": "north", "on-success": [again]}
    steps = [{**north, "next_step_name": "south"}, {**south, "next_step_name": "", "is_terminal_step": True}]
    owner.put("exports", {"max_step_runs": 3, "steps": steps})
    id = owner.make("exports")
    assert owner.ended(id)["failure"]["reason"] == "loop_limit"
    published = [event["file"]["name"] for event in owner.events(id) if event["type"] == "file.published"]
    listed = owner.client.get(f"/v1/executions/{id}").json()["files"]
    assert sorted(published) == [file["name"] for file in listed] == [
        "north~manifest.json", "north~manifest~2.json", "north~reports-HA.csv", "north~reports-HA~2.csv",
        "south~manifest.json", "south~reports-HA.csv",
    ]  # fmt: skip
    address = {"MILLSTREAM_CLIENT__URL": local.state["api_url"], "MILLSTREAM_CLIENT__KEY": local.api_key}
    assert Millstream(tmp_path, address)("job", "download", id).code == 0
    for file in listed:
        assert hashlib.sha256((tmp_path / file["name"]).read_bytes()).hexdigest() == file["sha256"]


def test_a_request_without_its_values_is_refused_with_all_that_is_wrong(alice: Requests) -> None:
    alice.put("unfilled", json.loads(example("make-api-call.json")))
    answer = alice.client.post("/v1/requests", json={"pipeline": "unfilled", "values": {"other": 1}})
    assert answer.status_code == 400
    assert {error["pointer"] for error in answer.json()["errors"]} == {
        "values.query_param", "values.value", "values.other",
    }  # fmt: skip


def test_a_held_request_is_started_approved_and_called(
    alice: Requests, bob: Requests, receiver: Receiver
) -> None:
    ask = {"step_name": "Ask", "step_type": "WAIT_FOR_APPROVAL", "next_step_name": "Order"}
    order = call("Order", receiver.url("/orders"), next_step_name="", prev_step_name="Ask")
    alice.put("approved", [{**ask, "prev_step_name": ""}, order])
    id = alice.make("approved", start=False)
    alice.told(id, "execution.accepted")
    view = alice.view(id)
    assert view["status"] == "Not Started" and {*statuses(view).values()} == {"Not Started"}
    assert alice.say(id, "start").json()["answer"] == "execution.started"
    view = alice.waiting(id, "approval")
    assert (view["status"], statuses(view)) == ("Pending", {"Ask": "Running", "Order": "Not Started"})
    assert receiver.calls == []
    own = alice.say(id, "steps/Ask/approve")
    assert (own.status_code, "self_approval" in own.text) == (409, True)
    mute = bob.say(id, "steps/Ask/reject")
    assert (mute.status_code, "reason_required" in mute.text) == (422, True)
    listed = bob.client.get("/v1/approvals").json()["items"]
    assert [entry["step"] for entry in listed if entry["request_id"] == id] == ["Ask"]
    answer = bob.say(id, "steps/Ask/approve", {"contentHash": view["content_hash"], "remark": "go"})
    assert (answer.status_code, answer.json()["answer"]) == (200, "approval.decided")
    assert bob.say(id, "steps/Ask/approve").status_code == 409
    view = alice.ended(id)
    assert (view["status"], {*statuses(view).values()}) == ("Completed", {"Completed"})
    assert [sent.target for sent in receiver.calls] == ["/orders"]
    decided = alice.told(id, "approval.decided")
    assert (decided["decision"], decided["decided_by"]) == ("approved", "bob")


def test_a_rejected_request_fails_and_nothing_after_it_begins(
    alice: Requests, bob: Requests, receiver: Receiver
) -> None:
    alice.put(
        "rejected", [{"step_name": "Ask", "step_type": "WAIT_FOR_APPROVAL"}, call("Order", receiver.url())]
    )
    id = alice.make("rejected")
    alice.waiting(id, "approval")
    assert bob.say(id, "steps/Ask/reject", {"reason": "too dear"}).status_code == 200
    view = alice.ended(id)
    assert (view["status"], view["failure"]["reason"]) == ("Failed", "approval_rejected")
    assert statuses(view) == {"Ask": "Failed", "Order": "Not Started"}
    assert receiver.calls == []


def test_a_step_that_never_started_has_no_log(alice: Requests, local: Local, receiver: Receiver) -> None:
    receiver.answers(status(400), target="/refuses")
    alice.put("logs", [call("First", receiver.url("/refuses")), call("Never", receiver.url("/never"))])
    id = alice.make("logs")
    assert statuses(alice.ended(id)) == {"First": "Failed", "Never": "Not Started"}
    folder = local.folder.root / "executor_logs" / id
    until((folder / "First.log").exists, 30, "the log of the step that ran")
    assert [path.name for path in folder.iterdir()] == ["First.log"]

    def text(step: str) -> str:
        return alice.client.get(f"/v1/executions/{id}/steps/{step}/log").text

    until(lambda: "api_response status=400" in text("First"), 30, "its log by the API")
    assert text("Never") == ""


# ---------------------------------------------------------------- S2


def loggers(receiver: Receiver, id: str) -> list[tuple[str, dict[str, str]]]:
    """Path and query of what the Logger heard, without the execution's id, which each must have."""
    found = []
    for sent in receiver.calls:
        parts = urlsplit(sent.target)
        if parts.path == "/logger/log":
            query = dict(parse_qsl(parts.query, strict_parsing=True))
            assert (sent.method, query.pop("executon")) == ("GET", id)
            found.append((parts.path, query))
    return found


def novas(receiver: Receiver) -> list[str]:
    """What Nova was asked, in order."""
    return [sent.target for sent in receiver.calls if sent.target.startswith("/nova")]


FAILURE = {"step": "task1", "reason": "http_400", "message": "POST was answered with 400"}
START = {"task": "task1", "type": "enter"}
DONE = {"task": "task1", "type": "done"}
FAILED = {"task": "task1", "type": "failed"}
# file -> what the Logger hears, Nova's calls and the steps that run: if task1 succeeds, and if it fails
FRAGMENTS: dict[
    str, tuple[tuple[list[dict[str, str]], list[str]], tuple[list[dict[str, str]], list[str]]]
] = {
    "workbook-utility-tasks.yaml": (
        ([START, {"task": "successLog", "type": "done"}], ["task1", "task2", "successLog"]),
        ([START, {"task": "errorLog", "type": "failed"}], ["task1", "task3", "errorLog"]),
    ),
    "workbook-actions.yaml": (
        ([START, DONE], ["task1", "task2"]),
        ([START, FAILED], ["task1", "task3"]),
    ),
    "workbook-gotos.yaml": (
        ([START, DONE], ["task1", "task2"]),
        ([START, FAILED], ["task1", "task3"]),
    ),
    "workflow-error-handling.yaml": (
        ([{"task": "handleError", "type": "done"}], ["task1", "task2", "handleError"]),
        ([{"task": "handleError", "type": "failed"}], ["task1", "task2", "handleError"]),
    ),
}


@pytest.mark.parametrize("fails", [False, True], ids=["success", "error"])
@pytest.mark.parametrize("file", FRAGMENTS)
def test_a_fragment_of_s2_calls_what_it_says(
    file: str, fails: bool, alice: Requests, receiver: Receiver
) -> None:
    said, ran = FRAGMENTS[file][fails]
    receiver.answers(status(400) if fails else OK, target="/nova/some")
    alice.put("fragment", example(file))
    values = {"NovaURL": receiver.url("/nova"), "LoggerURL": receiver.url("/logger")}
    id = alice.make("fragment", values)
    view = alice.ended(id)
    assert view["status"] == "Completed", view  # the error was handled
    heard(receiver, 2 + len(said))
    errors = {**FAILURE} if fails else None
    wanted = [("/logger/log", {**query, **(_error(query, errors))}) for query in said]
    assert sorted(map(_shown, loggers(receiver, id))) == sorted(map(_shown, wanted))
    assert novas(receiver) == ["/nova/some", "/nova/else"]
    begun = [name for name, word in statuses(view).items() if word != "Not Started"]
    assert sorted(begun) == sorted(ran)
    assert len(receiver.calls) == 2 + len(said)


def _error(query: dict[str, str], errors: dict[str, str] | None) -> dict[str, str]:
    """What `$.execution.error` adds to a call that names it."""
    if query["type"] != "failed":
        return {}
    return {"error": json.dumps(errors, separators=(",", ":"))}


def _shown(entry: tuple[str, dict[str, str]]) -> str:
    return repr((entry[0], sorted(entry[1].items())))


def test_the_fragment_of_services_is_added_to_a_pipeline_piece_by_piece(
    alice: Requests, receiver: Receiver
) -> None:
    services = yaml.safe_load(example("service.yaml"))["Service"]
    revision = alice.put("pieces", {"Workbook": {"tasks": {"task1": {"action": "std:no-op"}}}})["revision"]
    for name in ("Nova", "Logger"):
        assert alice.client.put(f"/v1/pipelines/pieces/services/{name}", json=services[name]).is_success
    for hook in (
        {"on": "enter", "action": "Logger:start"},
        {"on": "exit", "action": "Logger:success", "when": "$.execution.error = null"},
        {"on": "exit", "action": "Logger:error", "when": "$.execution.error != null"},
        {"on": "success", "action": "Nova:some", "wait": True},
    ):
        added = alice.client.post("/v1/pipelines/pieces/steps/task1/hooks", json=hook)
        assert added.status_code == 200, added.text
    assert added.json()["revision"] == revision + 6
    id = alice.make("pieces", {"NovaURL": receiver.url("/nova"), "LoggerURL": receiver.url("/logger")})
    assert alice.ended(id)["status"] == "Completed"
    heard(receiver, 3)
    assert novas(receiver) == ["/nova/some"]
    assert sorted(map(_shown, loggers(receiver, id))) == sorted(
        _shown(("/logger/log", query)) for query in (START, DONE)
    )


def test_a_loop_by_goto_ends_at_its_limit(alice: Requests, receiver: Receiver) -> None:
    steps = [
        call("again", receiver.url("/again"), **{"on-exit": {"std:goto(again)": "$.result.body.n < 10"}}),
    ]
    alice.put("loop", {"steps": steps, "max_step_runs": 7})
    view = alice.ended(alice.make("loop"))
    assert (view["status"], view["failure"]["reason"]) == ("Failed", "loop_limit")
    assert "max_step_runs" in view["failure"]["message"]
    assert [sent.target for sent in receiver.calls] == ["/again"] * 7
    keys = {sent.headers["idempotency-key"] for sent in receiver.calls}
    assert keys == {ids.step_key(view["id"], "again", visit) for visit in range(1, 8)}


def test_a_loop_by_goto_ends_when_its_condition_does(alice: Requests, receiver: Receiver) -> None:
    answers = [status(200, "Content-Type: application/json\r\n", b'{"n": %d}' % n) for n in (1, 2, 3)]
    receiver.answers(*answers, target="/again")
    goto = {"std:goto(again)": "$.result.body.n < 3"}
    alice.put("counted", [call("again", receiver.url("/again"), **{"on-exit": goto})])
    assert alice.ended(alice.make("counted"))["status"] == "Completed"
    assert len(receiver.calls) == 3


def test_an_awaited_hook_that_fails_fails_its_step(alice: Requests, receiver: Receiver) -> None:
    receiver.answers(status(400), target="/log/refuses")
    hook = {"action": "Log:refuses", "wait": True}
    steps = [call("work", receiver.url("/work"), **{"on-enter": hook}), pipelining.noop("never")]
    alice.put("awaited", {"services": logger(receiver, "refuses"), "steps": steps})
    id = alice.make("awaited")
    view = alice.ended(id)
    assert (view["status"], view["failure"]["reason"]) == ("Failed", "hook_failed")
    assert statuses(view) == {"work": "Failed", "never": "Not Started"}
    assert [sent.target for sent in receiver.calls] == ["/log/refuses?task=work"]  # the work did not begin
    failed = alice.told(id, "hook.failed")
    assert (failed["hook"], failed["on"], failed["reason"]) == ("Log:refuses", "enter", "http_400")


def test_a_cast_hook_that_fails_fails_nothing_else(alice: Requests, receiver: Receiver) -> None:
    receiver.answers(status(400), target="/log/refuses")
    hooks = {"on-enter": "Log:refuses", "on-success": "Log:hears"}
    alice.put("cast", {
        "services": logger(receiver, "refuses", "hears"),
        "steps": [call("work", receiver.url("/work"), **hooks)],
    })  # fmt: skip
    id = alice.make("cast")
    assert alice.ended(id)["status"] == "Completed"
    assert alice.told(id, "hook.failed")["reason"] == "http_400"
    alice.told(id, "hook.completed")
    wanted = {"/log/refuses?task=work": 1, "/work": 1, "/log/hears?task=work": 1}
    assert Counter(sent.target for sent in receiver.calls) == wanted


def test_a_paused_request_begins_nothing_until_it_is_resumed(alice: Requests, receiver: Receiver) -> None:
    steps = [
        pipelining.noop("first", wait_after_s=1),
        call("second", receiver.url("/second")),
        call("third", receiver.url("/third"), pause_before=True),
    ]
    alice.put("paused", steps)
    id = alice.make("paused", start=False)
    assert alice.say(id, "start").status_code == 200
    assert alice.say(id, "pause").json()["answer"] == "execution.waiting"
    again = alice.say(id, "pause")
    assert (again.status_code, "already_paused" in again.text) == (409, True)
    alice.told(id, "step.completed")
    assert (alice.waiting(id, "paused")["status"], receiver.calls) == ("Pending", [])
    assert alice.say(id, "resume").json()["answer"] == "execution.resumed"
    view = alice.waiting(id, "pause_before")
    assert view["waiting"]["step"] == "third"
    assert [sent.target for sent in receiver.calls] == ["/second"]
    assert alice.say(id, "resume").status_code == 200
    assert alice.ended(id)["status"] == "Completed"
    assert [sent.target for sent in receiver.calls] == ["/second", "/third"]
    assert alice.say(id, "resume").status_code == 409


def test_a_pipeline_calls_back(alice: Requests, receiver: Receiver) -> None:
    receiver.otherwise = status(204)
    alice.put("called-back", [pipelining.noop("one"), pipelining.noop("two")])
    callback = {"url": receiver.url("/hook"), "events": ["TASK", "on-execution-complete"]}
    id = alice.make("called-back", callbacks=[callback])
    assert alice.ended(id)["status"] == "Completed"

    def told() -> Counter[str]:
        bodies = {json.loads(sent.body)["id"]: json.loads(sent.body) for sent in receiver.calls}
        assert {body["data"]["execution_id"] for body in bodies.values()} <= {id}
        return Counter(body["type"].removeprefix("millstream.") for body in bodies.values())

    until(lambda: told()["execution.completed"], HEARD_WITHIN_S, "the callback of the end")
    until(lambda: told()["step.completed"] == 2, HEARD_WITHIN_S, "the callbacks of both steps")
