"""Authors command what they asked for themselves, operators anything of their tenant: by every route."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from services.contracts import events
from tests.commanding import Millstream
from tests.serving import Api, accepted, facts

pytestmark = pytest.mark.postgres

PIPELINE = {"steps": [{"step_name": "a", "step_type": "NOOP"}]}
EXECUTIONS = ("cancel", "rerun")
REQUESTS = ("start", "cancel", "pause", "resume", "rerun", "amend")
ROUTES = [
    *(f"/v1/executions/{{id}}/{word}" for word in EXECUTIONS),
    *(f"/v1/requests/{{id}}/{word}" for word in REQUESTS),
]
OPEN_TO_APPROVERS = [f"/v1/requests/{{id}}/steps/a/{word}" for word in ("approve", "reject", "remark")]


@pytest.fixture(scope="module")
def request_of_ada(api: Api, client: httpx.Client) -> str:
    client.put("/v1/pipelines/one", json=PIPELINE).raise_for_status()
    with as_author(api, "ada") as ada:
        answer = ada.post("/v1/requests", json={"pipeline": "one", "start": False})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


def as_author(api: Api, principal: str, **more: Any) -> httpx.Client:
    return api.client(api.key("author", principal=principal, **more))


def give(client: httpx.Client, route: str, id: str) -> httpx.Response:
    """The command, without waiting for its answer: nobody answers here."""
    body: Any = {"values": {}} if route.endswith("amend") else {}
    body = {"reason": "so"} if route.endswith("reject") else body
    try:
        return client.post(route.format(id=id), json=body, timeout=0.8)
    except httpx.ReadTimeout:
        return httpx.Response(202)


def test_every_command_route_of_the_api_is_in_this_test(api: Api, client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    found = {
        path.replace("{step}", "a")
        for path, methods in document["paths"].items()
        if "post" in methods and path.startswith(("/v1/executions/{id}/", "/v1/requests/{id}/"))
    }
    assert {path for path in found if not path.endswith("revoke-links")} == {*ROUTES, *OPEN_TO_APPROVERS}


@pytest.mark.parametrize("route", ROUTES)
def test_another_author_is_refused_and_nothing_is_stored(api: Api, request_of_ada: str, route: str) -> None:
    before = api.count("command")
    with as_author(api, "bob") as bob:
        answer = give(bob, route, request_of_ada)
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:millstream:problem:forbidden")
    assert answer.json()["detail"] == (
        "expected an execution that you asked for, found one of ada; operators command those of others"
    )
    assert api.count("command") == before


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("role", "principal", "owner"),
    [("author", "ada", None), ("author", "bot", "ada"), ("operator", "olga", None), ("admin", "root", None)],
)
def test_the_author_the_bot_of_the_author_and_operators_are_heard(
    api: Api, request_of_ada: str, route: str, role: str, principal: str, owner: str | None
) -> None:
    with api.client(api.key(role, principal=principal, owner=owner)) as caller:
        answer = give(caller, route, request_of_ada)
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("route", OPEN_TO_APPROVERS)
def test_approvals_are_for_the_pipeline_to_say(api: Api, request_of_ada: str, route: str) -> None:
    with as_author(api, "bob") as bob:
        assert give(bob, route, request_of_ada).status_code == 202


def test_the_person_behind_the_bot_that_asked_may_command(api: Api, client: httpx.Client) -> None:
    with as_author(api, "bot7", owner="carol") as bot:
        id = bot.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
    api.project([accepted(id, owner="carol"), events.ExecutionStarted(**facts(id, 2))])
    with as_author(api, "carol") as carol, as_author(api, "bob") as bob:
        assert give(carol, "/v1/executions/{id}/cancel", id).status_code == 202
        assert give(bob, "/v1/executions/{id}/cancel", id).status_code == 403


def test_a_stranger_of_another_tenant_learns_nothing(api: Api, request_of_ada: str) -> None:
    with api.client(api.key("admin", tenant="other", principal="ada")) as stranger:
        assert give(stranger, "/v1/executions/{id}/cancel", request_of_ada).status_code == 404


@pytest.mark.parametrize("words", [("job", "cancel"), ("job", "rerun"), ("request", "pause")])
def test_the_command_line_says_whose_it_is(
    api: Api, request_of_ada: str, tmp_path: Path, words: tuple[str, str]
) -> None:
    key = api.key("author", principal="bob")
    bob = Millstream(tmp_path, {"MILLSTREAM_CLIENT__URL": api.url, "MILLSTREAM_CLIENT__KEY": key})
    ran = bob(*words, request_of_ada)
    assert ran.code == 4
    assert "found one of ada; operators command those of others" in " ".join(ran.err.split())
