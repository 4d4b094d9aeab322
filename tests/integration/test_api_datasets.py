"""/v1/datasets: revisions, ETags, conditions, pages."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import yaml

from tests.serving import FLIGHTS, Api

pytestmark = pytest.mark.postgres

PATH = "/v1/datasets/flights-report"
OTHER = FLIGHTS.replace("public.flights", "public.flights_2014")


@pytest.fixture
def client(api: Api, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """An operator of a tenant of the test's own."""
    with api.client(api.key("operator", tenant=f"t{abs(hash(request.node.name))}")) as made:
        yield made


def test_revisions_are_immutable_and_the_same_body_makes_none(api: Api, client: httpx.Client) -> None:
    first = client.put(PATH, content=FLIGHTS)
    assert (first.status_code, first.headers["location"]) == (201, PATH)
    assert first.json()["revision"] == 1
    again = client.put(PATH, json=yaml.safe_load(FLIGHTS))
    assert (again.status_code, again.json()) == (200, first.json())
    second = client.put(PATH, content=OTHER)
    assert (second.status_code, second.json()["revision"]) == (200, 2)
    assert second.headers["etag"] != first.headers["etag"]

    current = client.get(PATH)
    assert current.json() == second.json()
    assert current.headers["etag"] == second.headers["etag"]
    assert client.get(PATH, params={"revision": 1}).json() == first.json()
    assert client.get(PATH, params={"revision": 3}).status_code == 404
    assert client.get(PATH, headers={"If-None-Match": current.headers["etag"]}).status_code == 304


def test_each_revision_is_published_in_order(api: Api, client: httpx.Client) -> None:
    path = "/v1/datasets/published"
    client.put(path, content=FLIGHTS)
    client.put(path, content=OTHER)
    client.delete(path)
    records = [r for r in api.outgoing("definition.state") if r.id == "published"]
    assert [(r.revision, r.deleted) for r in records] == [(1, False), (2, False), (3, True)]
    assert records[1].body["table"] == "public.flights_2014"
    assert records[2].body is None
    assert client.get(path).status_code == 404
    assert client.delete(path).status_code == 404
    assert client.put(path, content=FLIGHTS).json()["revision"] == 4


def test_conditions(client: httpx.Client) -> None:
    assert client.put(PATH, content=FLIGHTS, headers={"If-Match": "*"}).status_code == 412
    first = client.put(PATH, content=FLIGHTS, headers={"If-None-Match": "*"})
    assert first.status_code == 201
    assert client.put(PATH, content=OTHER, headers={"If-None-Match": "*"}).status_code == 412
    etag = first.headers["etag"]
    assert client.put(PATH, content=OTHER, headers={"If-Match": f"W/{etag}"}).status_code == 412
    assert client.put(PATH, content=OTHER, headers={"If-Match": f'"x", {etag}'}).status_code == 200
    stale = client.put(PATH, content=FLIGHTS, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["type"]) == (412, "urn:millstream:problem:precondition-failed")
    assert client.delete(PATH, headers={"If-Match": etag}).status_code == 412


def test_writers_at_once_make_dense_revisions(client: httpx.Client) -> None:
    def put(number: int) -> int:
        body = FLIGHTS.replace("public.flights", f"public.flights_{number}")
        return int(client.put(PATH, content=body).json()["revision"])

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(put, range(16))) == list(range(1, 17))


def test_pages_follow_the_link(client: httpx.Client) -> None:
    for number in range(5):
        client.put(f"/v1/datasets/d{number}", content=FLIGHTS).raise_for_status()
    client.delete("/v1/datasets/d1")
    found, url = [], "/v1/datasets?limit=2"
    while url:
        answer = client.get(url)
        found.append([item["id"] for item in answer.json()["items"]])
        url = answer.json()["next"] or ""
        assert answer.links.get("next", {}).get("url", "") == url
    assert found == [["d0", "d2"], ["d3", "d4"]]


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"limit": 201}, "limit"),
        ({"limit": 0}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"cursor": "A B"}, "cursor"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/executions"])
def test_bad_pages(client: httpx.Client, path: str, params: dict[str, Any], pointer: str) -> None:
    answer = client.get(path, params=params)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_every_fault_of_a_definition_is_named(client: httpx.Client) -> None:
    body = yaml.safe_load(FLIGHTS)
    body["columns"][0]["type"] = "text"
    body["filters"] = ["speed"]
    answer = client.put(PATH, json=body)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == ["columns[0].type", "filters[0]"]


YAML = {"Content-Type": "application/yaml"}
BAD: dict[str, tuple[str, dict[str, str], int, str]] = {
    "alias": ("a: &x [1]\nb: *x\n", YAML, 400, "anchors and aliases are refused (line 1, column 4)"),
    "tag": ("a: !!python/object:os.system x\n", YAML, 400, "tags are refused"),
    "doubled key": ("source: a\nsource: b\n", YAML, 400, "the key 'source' stands twice (line 2, column 1)"),
    "merge key": ("<<: {a: 1}\n", YAML, 400, "<<: unknown field"),
    "two documents": ("a: 1\n---\nb: 2\n", YAML, 400, "expected one document"),
    "depth": ("[" * 100_000, YAML, 400, "at most 32 levels"),
    "list as key": ("? [a]\n: 1\n", YAML, 400, "a key is no plain text"),
    "infinite": (
        "a: 1.0e999\n",
        YAML,
        400,
        "a: expected a number that a 64-bit float keeps exactly",
    ),
    "NUL": ('a: "x\\0y"\n', YAML, 400, "a: expected text without NUL"),
    "unclosed": ("a: [1\n", YAML, 400, "not YAML"),
    "big integer": (f"a: {'9' * 5000}\n", YAML, 400, "a: expected an integer of at most 64 bits"),
    "empty": ("", YAML, 400, "empty"),
    "JSON that is YAML": ("a: 1", {"Content-Type": "application/json"}, 400, "not JSON"),
    "form": ("a=1", {"Content-Type": "multipart/form-data"}, 415, "application/yaml"),
    "too large": (" " * 262_145, YAML, 413, "at most 262144 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bodies(client: httpx.Client, name: str) -> None:
    content, headers, status, message = BAD[name]
    answer = client.put(PATH, content=content, headers=headers)
    assert answer.status_code == status
    assert message in answer.json()["detail"]


def test_yaml_texts_stay_texts(client: httpx.Client) -> None:
    body = FLIGHTS.replace("[9E, AA]", "[NO, 9E, 1e3x, on]")
    stored = client.put(PATH, content=body, headers=YAML).json()["definition"]
    assert stored["batch"]["values"] == ["NO", "9E", "1e3x", "on"]


def test_curl_without_a_content_type_works(client: httpx.Client) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.put(PATH, content=FLIGHTS, headers=form).status_code == 201
    assert client.put(PATH, content=json.dumps(yaml.safe_load(FLIGHTS)), headers=form).status_code == 200


@pytest.mark.parametrize("id", ["Flights", "-x", "a" * 101, "a b", "é"])
def test_bad_ids(client: httpx.Client, id: str) -> None:
    answer = client.put(f"/v1/datasets/{id}", content=FLIGHTS)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "id")
    assert client.get(f"/v1/datasets/{id}").status_code == 404


def test_unknown_routes_and_methods_are_problems(client: httpx.Client) -> None:
    missing = client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:millstream:problem:not-found")
    method = client.patch(PATH)
    assert (method.status_code, method.json()["type"]) == (405, "urn:millstream:problem:method-not-allowed")
    assert "GET" in method.headers["allow"]
