"""Who may do what: keys, roles, tenants (matrix K and M as far as they apply)."""

import hashlib
from datetime import timedelta

import httpx
import pytest

from services.api import keys
from services.api.keys import Caller, Role
from services.runtime.entropy import LocalClock
from tests.serving import FLIGHTS, Api
from tests.waiting import until

pytestmark = pytest.mark.postgres


# ---------------------------------------------------------------- keys


def altered(key: str) -> str:
    return key[:-1] + ("A" if key[-1] != "A" else "B")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic {key}",
        "{key}",
        "Bearer {altered}",
        "Bearer ms_000000000000_{tail}",
        "Bearer {key} x",
    ],
)
def test_a_wrong_key_is_refused(api: Api, anonymous: httpx.Client, authorization: str) -> None:
    key = api.key()
    header = authorization.format(key=key, altered=altered(key), tail=key.rpartition("_")[2][:43])
    answer = anonymous.get("/v1/executions", headers={"Authorization": header.strip()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["type"] == "urn:millstream:problem:unauthorized"
    assert key not in answer.text


def test_a_key_is_never_taken_from_the_query(api: Api, anonymous: httpx.Client) -> None:
    assert anonymous.get("/v1/executions", params={"api_key": api.key()}).status_code == 401


def test_an_expired_key_is_refused(api: Api, anonymous: httpx.Client) -> None:
    with api.cursor() as cursor:
        past = LocalClock().now() - timedelta(seconds=1)
        key = keys.create(cursor, Caller("acme", "alice", Role.ADMIN), past)
    answer = anonymous.get("/v1/executions", headers={"Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["detail"]) == (401, "the key is unknown, revoked or expired")


def test_a_revoked_key_ends_within_two_seconds(api: Api) -> None:
    key = api.key("viewer")
    with api.client(key) as each:
        assert each.get("/v1/executions").status_code == 200
        with api.cursor() as cursor:
            cursor.execute(
                "UPDATE api.api_key SET revoked_at = now() WHERE prefix = %s", (key.split("_")[1],)
            )
        until(lambda: each.get("/v1/executions").status_code == 401, keys.CACHED_S + 2, "the key to end")


def test_the_database_holds_no_key(api: Api) -> None:
    key = api.key()
    held = str(api.rows("SELECT k::text FROM api.api_key AS k"))
    assert key.split("_")[1] in held
    assert key.split("_", 2)[2] not in held
    assert hashlib.sha256(key.encode()).hexdigest() in held


ALLOWED = {
    "viewer": {"list"},
    "author": {"list", "submit"},
    "operator": {"list", "submit", "define", "remove"},
    "admin": {"list", "submit", "define", "remove"},
}


@pytest.mark.parametrize("role", ALLOWED)
def test_roles(api: Api, role: str) -> None:
    with api.client(api.key(role, tenant=f"roles-{role}")) as each:
        statuses = {
            "list": each.get("/v1/executions").status_code,
            "submit": each.post("/v1/executions", json={"jobType": "noop"}).status_code,
            "define": each.put("/v1/datasets/d", content=FLIGHTS).status_code,
            "remove": each.delete("/v1/datasets/d").status_code,
        }
    assert {what for what, status in statuses.items() if status < 300} == ALLOWED[role]
    assert {status for status in statuses.values() if status >= 300} <= {403}


def test_a_key_tells_whose_it_is_and_never_itself(api: Api) -> None:
    key = api.key("author", "me-tenant", "refunds-bot", owner="ada", groups=["finance"])
    _, prefix, secret = key.split("_", 2)
    with api.client(key) as client:
        answer = client.get("/v1/me")
    assert answer.json() == {
        "tenant": "me-tenant",
        "key_id": prefix,
        "principal": "refunds-bot",
        "owner": "ada",
        "role": "author",
        "groups": ["finance"],
    }
    assert secret not in answer.text


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_health_and_metrics_are_not_on_the_public_port(anonymous: httpx.Client, path: str) -> None:
    assert anonymous.get(path).status_code == 404


def test_every_other_route_needs_a_key(client: httpx.Client, anonymous: httpx.Client) -> None:
    assert anonymous.get("/openapi.json").status_code == 401
    document = client.get("/openapi.json").json()
    routes = [
        (method.upper(), path.replace("{id}", "0" * 40))
        for path, operations in document["paths"].items()
        if path.startswith("/v1/")
        for method in operations
    ]
    assert len(routes) >= 8
    for method, path in routes:
        assert anonymous.request(method, path).status_code == 401, (method, path)


# ---------------------------------------------------------------- tenants


def test_another_tenants_execution_looks_like_none(api: Api, client: httpx.Client) -> None:
    id = client.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
    with api.client(api.key("admin", tenant="other")) as other:
        for path in ("/v1/executions/{}", "/v1/executions/{}/events"):
            foreign, missing = other.get(path.format(id)), other.get(path.format("f" * 40))
            assert foreign.status_code == missing.status_code == 404
            assert foreign.content == missing.content
        assert other.get("/v1/executions").json()["items"] == []
    assert client.get("/v1/executions/not-an-id").status_code == 404


def test_another_tenants_dataset_looks_like_none(api: Api, client: httpx.Client) -> None:
    client.put("/v1/datasets/mine", content=FLIGHTS).raise_for_status()
    with api.client(api.key("admin", tenant="other")) as other:
        foreign, missing = other.get("/v1/datasets/mine"), other.get("/v1/datasets/none")
        assert foreign.status_code == missing.status_code == 404
        assert foreign.content == missing.content
        assert other.get("/v1/datasets").json()["items"] == []
        body = {"jobType": "export", "dataset": "mine"}
        assert other.post("/v1/executions", json=body).json()["errors"][0]["pointer"] == "dataset"


def test_a_foreign_cursor_shows_nothing_foreign(api: Api, client: httpx.Client) -> None:
    for _ in range(2):
        client.post("/v1/executions", json={"jobType": "noop"})
    following = client.get("/v1/executions", params={"limit": 1}).json()["next"]
    with api.client(api.key("admin", tenant="elsewhere")) as other:
        assert other.get(following).json() == {"items": [], "next": None}
