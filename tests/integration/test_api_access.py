"""Who may do what: keys, roles, tenants, signed links (matrix H, K and M as far as they apply)."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from services.api import keys
from services.api.core.links import Links
from services.api.keys import Caller, Role
from services.runtime.entropy import LocalClock
from tests.serving import FLIGHTS, LINK_KEYS, TTL_S, Api, serving
from tests.stack import Stack
from tests.waiting import until

pytestmark = pytest.mark.postgres

CONTENT = b"carrier\nAA\n"
NAME = "reports-AA.csv"


@pytest.fixture(scope="module")
def api(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving(stack.fresh_database(), tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    with api.client() as made:
        yield made


@pytest.fixture(scope="module")
def anonymous(api: Api) -> Iterator[httpx.Client]:
    with api.client("") as made:
        yield made


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


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_open_to_everybody(anonymous: httpx.Client, path: str) -> None:
    assert anonymous.get(path).status_code == 200


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


# ---------------------------------------------------------------- links


@pytest.fixture(scope="module")
def link(api: Api, client: httpx.Client) -> httpx.URL:
    """A good link."""
    view = api.publish_file(client, NAME, CONTENT)
    (file,) = view["files"]
    assert file["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    return httpx.URL(file["url"])


def test_a_link_opens_its_file_without_a_key(anonymous: httpx.Client, link: httpx.URL) -> None:
    answer = anonymous.get(link)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert answer.headers["content-disposition"] == f'attachment; filename="{NAME}"'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"].startswith("text/csv")


def test_head_tells_without_the_bytes(anonymous: httpx.Client, link: httpx.URL) -> None:
    answer = anonymous.head(link)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(CONTENT))


def test_links_are_made_at_read_time(client: httpx.Client, link: httpx.URL) -> None:
    view = client.get(f"/v1/executions/{link.path.split('/')[2]}").json()
    (file,) = view["files"]
    assert file["expires_at"] > LocalClock().now().isoformat()
    assert int(httpx.URL(file["url"]).params["expires"]) >= int(link.params["expires"])


def forged(link: httpx.URL, **changes: str) -> str:
    """The link with other parts; `now` moves its making, `tenant` and `keys` sign anew."""
    _, _, execution, name = link.path.split("/")
    tenant = changes.pop("tenant", "acme")
    key_id = changes.pop("key_id", "l1")
    secret = LINK_KEYS["l1"] if changes.pop("secret", "") == "ours" else bytes(32)
    now_s = int(link.params["expires"]) - TTL_S
    return Links({key_id: secret}, TTL_S).link(tenant, execution, name, now_s)[0]


def replaced(link: httpx.URL, name: str, value: str) -> str:
    return str(link).replace(f"{name}={link.params[name]}", f"{name}={value}")


def other_links(link: httpx.URL) -> dict[str, str]:
    text, expires, signature = str(link), int(link.params["expires"]), link.params["sig"]
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    return {
        "execution": text.replace(link.path.split("/")[2], "0" * 40),
        "file": text.replace(NAME, "reports-9E.csv"),
        "expiry extended": replaced(link, "expires", str(expires + 1)),
        "expiry shortened": replaced(link, "expires", str(expires - 1)),
        "expiry respelled": replaced(link, "expires", f"0{expires}"),
        "key id": replaced(link, "kid", "l0"),
        "key id unknown": replaced(link, "kid", "l9"),
        "signature flipped": replaced(link, "sig", flipped),
        "signature cut": replaced(link, "sig", signature[:-1]),
        "signature padded": replaced(link, "sig", f"{signature}="),
        "signature empty": replaced(link, "sig", ""),
        "tenant": forged(link, tenant="other", secret="ours"),
        "another environment's key": forged(link),
        "a retired key": forged(link, key_id="l7"),
        "parameter doubled": f"{text}&sig={signature}",
        "parameter added": f"{text}&x=1",
        "parameters reordered": f"{link.path}?kid={link.params['kid']}&expires={expires}&sig={signature}",
        "path re-encoded": text.replace("reports", "%72eports"),
        "path doubled": text.replace("/files/", "/files//"),
        "no query": link.path,
    }


@pytest.mark.parametrize(
    "name", list(other_links(httpx.URL(f"/files/{'1' * 40}/{NAME}?expires=9&kid=l1&sig=QQQ")))
)
def test_any_other_link_is_not_found(anonymous: httpx.Client, link: httpx.URL, name: str) -> None:
    changed = other_links(link)[name]
    missing = anonymous.get(f"/files/{'2' * 40}/x.csv")
    answer = anonymous.get(changed)
    assert (answer.status_code, answer.content) == (404, missing.content)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_is_not_found(anonymous: httpx.Client, link: httpx.URL, method: str) -> None:
    assert anonymous.request(method, link).status_code == 404


def test_a_link_ends_when_it_says(anonymous: httpx.Client, link: httpx.URL) -> None:
    _, _, execution, name = link.path.split("/")
    links, now = Links(LINK_KEYS, TTL_S), int(LocalClock().now().timestamp())
    late = links.link("acme", execution, name, now - TTL_S - 1)[0]
    early = links.link("acme", execution, name, now - TTL_S + 30)[0]
    assert anonymous.get(late).status_code == 404
    assert anonymous.get(early).status_code == 200


def test_a_file_that_is_gone_or_cut_is_not_found(
    api: Api, client: httpx.Client, anonymous: httpx.Client
) -> None:
    view = api.publish_file(client, "gone.csv", CONTENT)
    (key,) = api.rows("SELECT blob_key FROM api.file WHERE name = 'gone.csv'")[0]
    api.parts.blobs.delete(key)
    assert anonymous.get(view["files"][0]["url"]).status_code == 404
