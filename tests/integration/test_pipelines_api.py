"""/v1/pipelines: checks, pinned datasets, revisions, and changes one by one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import yaml

from tests.serving import FLIGHTS, Api

pytestmark = pytest.mark.postgres

PATH = "/v1/pipelines/calls"
CALL: dict[str, Any] = {
    "step_name": "Make API Call",
    "step_type": "API",
    "next_step_name": "",
    "prev_step_name": "",
    "parameters": {
        "method": "POST",
        "url": "https://httpbin.org/post?q=${query_param}",
        "data": {"key": "${value}"},
        "headers": {"content-type": "application/json"},
    },
    "is_terminal_step": True,
}
LOGGER = {
    "type": "HTTP",
    "parameters": {
        "baseUrl": "https://log.example",
        "actions": {"start": {"parameters": {"url": "/log", "method": "GET"}}},
    },
}
EXPORT = """
steps:
  - step_name: rows
    step_type: EXPORT
    parameters: {dataset: flights-report, batches: ["9E"]}
"""


@pytest.fixture
def client(api: Api, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """An operator of a tenant of the test's own."""
    with api.client(api.key("operator", tenant=f"t{abs(hash(request.node.name))}")) as made:
        yield made


def faults(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 400, answer.text
    return [error["pointer"] for error in answer.json()["errors"]]


def test_the_example_of_the_manual_is_stored_as_it_was_sent(api: Api, client: httpx.Client) -> None:
    first = client.put(PATH, json=CALL)
    assert (first.status_code, first.headers["location"], first.json()["revision"]) == (201, PATH, 1)
    assert first.json()["definition"] == CALL
    assert client.put(PATH, content=yaml.safe_dump(CALL)).json() == first.json()
    assert client.get(PATH).json() == first.json()
    (record,) = [r for r in api.outgoing("definition.state") if r.body == CALL]
    assert (record.kind, record.id, record.revision) == ("pipeline", "calls", 1)


def test_every_fault_is_named_at_once(client: httpx.Client) -> None:
    steps = [
        {**CALL, "step_name": "a", "next_step_name": "c", "is_terminal_step": False, "colour": "red"},
        {**CALL, "step_name": "a/b", "step_type": "FLY", "is_terminal_step": False},
    ]
    found = faults(client.put(PATH, json=steps))
    assert {"[0].colour", "[0].next_step_name", "[1].step_name", "[1].step_type"} <= set(found)
    assert client.get(PATH).status_code == 404


def test_an_exporting_step_pins_its_dataset(client: httpx.Client) -> None:
    assert faults(client.put(PATH, content=EXPORT)) == ["steps[0].parameters.dataset"]
    client.put("/v1/datasets/flights-report", content=FLIGHTS).raise_for_status()
    first = client.put(PATH, content=EXPORT).json()
    assert first["definition"]["datasets"] == {
        "flights-report": {"revision": 1, "body": yaml.safe_load(FLIGHTS)}
    }
    client.put("/v1/datasets/flights-report", content=FLIGHTS.replace("flights\nco", "others\nco"))
    assert client.get(PATH).json() == first, "what runs is what was read when it was written"
    again = client.put(PATH, json=first["definition"]).json()
    assert (again["revision"], again["definition"]["datasets"]["flights-report"]["revision"]) == (2, 2)


def test_revisions_are_listed_newest_first_deletions_included(client: httpx.Client) -> None:
    bodies = [{**CALL, "description": text} for text in ("one", "two", "three")]
    for body in bodies:
        client.put(PATH, json=body).raise_for_status()
    client.delete(PATH).raise_for_status()
    found: list[Any] = []
    url = f"{PATH}/revisions?limit=3"
    while url:
        answer = client.get(url).json()
        found += answer["items"]
        url = answer["next"] or ""
    assert [(item["revision"], item["deleted"]) for item in found] == [
        (4, True),
        (3, False),
        (2, False),
        (1, False),
    ]
    assert client.get(PATH, params={"revision": 2}).json()["definition"]["description"] == "two"
    assert client.get("/v1/pipelines/none/revisions").status_code == 404
    assert faults(client.get(f"{PATH}/revisions", params={"cursor": "x"})) == ["cursor"]


def test_pieces_are_added_one_by_one_and_each_is_a_revision(client: httpx.Client) -> None:
    client.put(PATH, json=CALL).raise_for_status()
    service = client.put(f"{PATH}/services/Logger", json=LOGGER)
    assert (service.status_code, service.json()["revision"]) == (200, 2)
    done = {"parameters": {"url": "/done", "method": "GET"}}
    action = client.put(f"{PATH}/services/Logger/actions/done", json=done)
    assert action.json()["revision"] == 3
    hook = {"on": "exit", "action": "Logger:done", "when": "$.execution.error = null", "wait": True}
    step = f"{PATH}/steps/Make%20API%20Call/hooks"
    assert client.post(step, json={"on": "enter", "action": "Logger:start"}).json()["revision"] == 4
    last = client.post(step, content=yaml.safe_dump(hook))
    assert last.json()["revision"] == 5
    (held,) = last.json()["definition"]["steps"]
    assert (held["on-enter"], held["on-exit"]) == (
        "Logger:start",
        {"action": "Logger:done", "when": "$.execution.error = null", "wait": True},
    )
    assert last.json()["definition"]["services"]["Logger"]["parameters"]["actions"]["done"] == done
    assert client.get(PATH).json() == last.json()
    assert last.headers["etag"] == client.get(PATH).headers["etag"]
    assert client.put(f"{PATH}/services/Logger/actions/done", json=done).json()["revision"] == 5


def test_pieces_are_taken_out_unless_they_are_called(client: httpx.Client) -> None:
    body = {"services": {"Logger": LOGGER}, "steps": [{**CALL, "on-enter": ["Logger:start", "std:no-op"]}]}
    client.put(PATH, json=body).raise_for_status()
    hooks = f"{PATH}/steps/Make%20API%20Call/hooks/enter"
    assert client.delete(f"{PATH}/services/Logger").status_code == 400
    assert client.delete(f"{PATH}/services/Logger/actions/start").status_code == 400
    assert client.delete(f"{hooks}/2").status_code == 404
    assert client.delete(f"{hooks}/0").json()["definition"]["steps"][0]["on-enter"] == ["std:no-op"]
    assert "on-enter" not in client.delete(f"{hooks}/0").json()["definition"]["steps"][0]
    assert client.delete(f"{PATH}/services/Other").status_code == 404
    assert client.delete(f"{PATH}/services/Logger").json()["definition"]["services"] == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("PUT", "/services/Other/actions/x", {}, "service"),
        ("POST", "/steps/none/hooks", {"on": "enter", "action": "std:no-op"}, "step"),
        ("POST", "/steps/Make%20API%20Call/hooks", {"on": "leave", "action": "std:no-op"}, "on"),
        ("POST", "/steps/Make%20API%20Call/hooks", {"on": "enter"}, "action"),
        ("POST", "/steps/Make%20API%20Call/hooks", {"on": "enter", "action": "X:y"}, "steps[0].on-enter"),
        ("PUT", "/services/Bad", {"type": "FTP"}, "services.Bad.type"),
    ],
)
def test_bad_pieces_make_no_revision(
    client: httpx.Client, method: str, path: str, body: Any, pointer: str
) -> None:
    client.put(PATH, json=CALL).raise_for_status()
    assert pointer in faults(client.request(method, PATH + path, json=body))
    assert client.get(PATH).json()["revision"] == 1


def test_conditions_hold_for_pieces_too(client: httpx.Client) -> None:
    etag = client.put(PATH, json=CALL).headers["etag"]
    stale = {"If-Match": '"1-0000"'}
    assert client.put(f"{PATH}/services/Logger", json=LOGGER, headers=stale).status_code == 412
    assert client.put(f"{PATH}/services/Logger", json=LOGGER, headers={"If-Match": etag}).status_code == 200
    assert client.delete(f"{PATH}/services/Logger", headers={"If-Match": etag}).status_code == 412
    assert client.put("/v1/pipelines/none/services/Logger", json=LOGGER).status_code == 404


def test_pieces_at_once_are_all_kept(client: httpx.Client) -> None:
    client.put(PATH, json=CALL).raise_for_status()

    def add(number: int) -> int:
        return client.put(f"{PATH}/services/S{number}", json=LOGGER).status_code

    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(add, range(12))] == [200] * 12
    found = client.get(PATH).json()
    assert (found["revision"], len(found["definition"]["services"])) == (13, 12)


def test_a_pipeline_that_no_request_could_hold_is_refused(client: httpx.Client) -> None:
    wide = yaml.safe_load(FLIGHTS)
    wide["batch"]["values"] = ["9E", *(f"{number:040}" for number in range(900))]
    steps = yaml.safe_load(EXPORT)["steps"]
    for number in range(6):
        client.put(f"/v1/datasets/d{number}", json=wide).raise_for_status()
        more = {"dataset": f"d{number}", "batches": ["9E"]}
        steps.append({**steps[0], "step_name": f"rows {number}", "parameters": more})
    answer = client.put(PATH, json={"steps": steps[1:]})
    assert faults(answer) == ["body"]
    assert "with the datasets that its steps export" in answer.json()["detail"]


def test_other_tenants_and_viewers(api: Api, client: httpx.Client) -> None:
    client.put(PATH, json=CALL).raise_for_status()
    with api.client(api.key("operator", tenant="stranger")) as stranger:
        assert stranger.get(PATH).status_code == 404
        assert stranger.get(f"{PATH}/revisions").status_code == 404
        assert stranger.put(f"{PATH}/services/Logger", json=LOGGER).status_code == 404
        assert stranger.delete(f"{PATH}/services/Logger").status_code == 404
    with api.client(api.key("author")) as author:
        assert author.put(PATH, json=CALL).status_code == 403
