"""POST /v1/executions: what is accepted, and the answer to everything that is not."""

import gzip
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.api import bodies
from services.api.routes.submit import BODY_BYTES_MAX
from services.runtime import sealing
from services.runtime.sealing import Sealer
from tests.serving import FLIGHTS, SEALING_KEYS, Api, serving

pytestmark = pytest.mark.postgres

CANARY = "canary-7f3a1c"
WEBHOOK_SECRET = "whsec_" + "Y2FuYXJ5" * 6


@pytest.fixture(scope="module")
def client(client: httpx.Client) -> httpx.Client:
    """An operator whose tenant has a dataset."""
    client.put("/v1/datasets/flights-report", content=FLIGHTS).raise_for_status()
    return client


def noop(**more: Any) -> dict[str, Any]:
    return {"jobType": "noop", **more}


def test_accepts_and_says_where_to_look(api: Api, client: httpx.Client) -> None:
    answer = client.post("/v1/executions", json=noop(tag="nightly"))
    assert answer.status_code == 202
    body = answer.json()
    id = body["execution_id"]
    assert body["status"] == "pending"
    assert answer.headers["location"] == body["links"]["self"] == f"/v1/executions/{id}"
    view = client.get(answer.headers["location"]).json()
    assert (view["status"], view["tag"], view["sequence"]) == ("pending", "nightly", 0)
    assert view["words"] == {"exhaust": "SUBMITTED", "reporting": "pending", "request": "Not Started"}
    record = next(r for r in api.outgoing("job.requested") if r.execution_id == id)
    assert (record.tenant, record.created_by, record.origin) == ("acme", "alice", "ad_hoc")


def test_an_export_carries_its_dataset(api: Api, client: httpx.Client) -> None:
    body = {
        "jobType": "export",
        "dataset": "flights-report",
        "params": {"batches": ["AA"]},
        "timeRange": {"from": "2013-01-01T00:00:00Z", "to": "2013-02-01T00:00:00Z"},
    }
    id = client.post("/v1/executions", json=body).json()["execution_id"]
    record = next(r for r in api.outgoing("job.requested") if r.execution_id == id)
    assert record.definition.id == "flights-report"
    assert record.definition.body["table"] == "public.flights"
    assert record.parameters == {"params": {"batches": ["AA"]}, "time_range": body["timeRange"]}


def test_every_fault_has_its_pointer(client: httpx.Client) -> None:
    body = {
        "jobType": "export",
        "dataset": "flights-report",
        "params": {"batches": ["AA", "ZZ"], "columns": ["tailnum"]},
    }
    answer = client.post("/v1/executions", json=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:millstream:problem:invalid-request"
    assert problem["status"] == 400
    messages = {error["pointer"]: error["message"] for error in problem["errors"]}
    assert set(messages) == {"params.batches[1]", "params.columns[0]"}
    assert messages["params.batches[1]"] == (
        'unknown batch "ZZ"; known: 9E, AA (GET /v1/datasets/flights-report)'
    )


def test_an_unknown_job_type_lists_the_known_ones_and_stores_nothing(api: Api, client: httpx.Client) -> None:
    before = api.count("job_request")
    answer = client.post("/v1/executions", json={"jobType": "pdf"})
    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"pointer": "jobType", "message": 'unknown job type "pdf"; known: export, noop, pipeline'}
    ]
    assert api.count("job_request") == before


def test_a_request_that_its_dataset_makes_too_large_is_refused_and_not_stored(
    api: Api, client: httpx.Client
) -> None:
    # In JSON, as it travels, each of these quotes takes two bytes.
    columns = [f"- {{name: c{n}, type: string, description: '{chr(34) * 1000}'}}" for n in range(240)]
    text = "\n".join(["source: flights", "table: public.wide", "columns:", *columns])
    yaml = {"Content-Type": "application/yaml"}
    assert client.put("/v1/datasets/wide", content=text, headers=yaml).status_code == 201
    answer = client.post("/v1/executions", json={"jobType": "export", "dataset": "wide"})
    assert answer.status_code == 413
    assert "expected at most 262144" in answer.json()["detail"]
    assert '"wide"' not in client.get("/v1/executions").text


def test_an_unknown_dataset_is_named(client: httpx.Client) -> None:
    answer = client.post("/v1/executions", json={"jobType": "export", "dataset": "nope"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "dataset"


# ---------------------------------------------------------------- matrix F: twenty bodies

JSON = {"Content-Type": "application/json"}
PADDING = b"x" * (BODY_BYTES_MAX + 1)


def chunked() -> Iterator[bytes]:
    """Too large, and without a Content-Length that says so."""
    yield b'{"jobType": "noop", "name": "'
    for _ in range(BODY_BYTES_MAX // 1024 + 1):
        yield b"x" * 1024
    yield b'"}'


def in_params(text: str) -> bytes:
    return b'{"jobType": "noop", "params": {"v": ' + text.encode() + b"}}"


BODIES: dict[str, tuple[Any, dict[str, str], int, str, str]] = {
    "too large": (b'{"name": "' + PADDING + b'"}', JSON, 413, "body-too-large", "at most 131072 bytes"),
    "chunked too large": (chunked, JSON, 413, "body-too-large", "at most 131072 bytes"),
    "depth 900": (in_params("[" * 900 + "]" * 900), JSON, 400, "malformed-body", "at most 32 levels"),
    "depth 1,000": (in_params("[" * 1000 + "]" * 1000), JSON, 400, "malformed-body", "at most 32 levels"),
    "depth 100,000": (b"[" * 100_000, JSON, 400, "malformed-body", "at most 32 levels"),
    "5,000-digit integer": (in_params("9" * 5000), JSON, 400, "malformed-body", "out of range"),
    "NaN": (in_params("NaN"), JSON, 400, "malformed-body", "not JSON"),
    "Infinity": (in_params("Infinity"), JSON, 400, "malformed-body", "not JSON"),
    "1e400": (in_params("1e400"), JSON, 400, "malformed-body", "found 1E+400"),
    "duplicate keys": (b'{"jobType": "noop", "jobType": "export"}', JSON, 400, "malformed-body", "twice"),
    "lone surrogate": (in_params('"\\ud800"'), JSON, 400, "malformed-body", "not JSON"),
    "\\u0000": (in_params('"a\\u0000b"'), JSON, 400, "malformed-body", "params.v: expected text without NUL"),
    "10,000 keys": (
        in_params("{" + ",".join(f'"k{i}":1' for i in range(10_000)) + "}"),
        JSON, 400, "malformed-body", "at most 10000",
    ),
    "100,000 items": (in_params("[" + "1," * 99_999 + "1]"), JSON, 413, "body-too-large", "at most 131072"),
    "gzip bomb": (
        gzip.compress(b" " * 10_000_000),
        {**JSON, "Content-Encoding": "gzip"}, 415, "unsupported-media-type", "compressed bodies are refused",
    ),
    "wrong type": (
        b"<noop/>", {"Content-Type": "application/xml"}, 415, "unsupported-media-type", "application/json"
    ),
    "bad UTF-8": (b'{"jobType": "n\xff"}', JSON, 400, "malformed-body", "not UTF-8 (byte 14)"),
    "BOM": (b"\xef\xbb\xbf" + b'{"jobType": "noop"}', JSON, 400, "malformed-body", "byte order mark"),
    "empty": (b"", JSON, 400, "malformed-body", "the body is empty"),
}  # fmt: skip
# Shapes that are JSON but no request, beyond the twenty.
SHAPES: dict[str, tuple[Any, dict[str, str], int, str, str]] = {
    "a list": (b"[]", JSON, 400, "invalid-request", "body: expected an object"),
    "a number for text": (b'{"jobType": 1}', JSON, 400, "invalid-request", "jobType: expected text"),
    "an unknown field": (b'{"jobType": "noop", "x": 1}', JSON, 400, "invalid-request", "x: unknown field"),
    "trailing text": (b'{"jobType": "noop"}}', JSON, 400, "malformed-body", "not JSON"),
    "65-bit integer": (in_params(str(2**63)), JSON, 400, "malformed-body", "at most 64 bits"),
    "duplicate keys, nested": (in_params('{"a": 1, "a": 1}'), JSON, 400, "malformed-body", "a: this key"),
    "UTF-16": ('{"jobType": "noop"}'.encode("utf-16"), JSON, 400, "malformed-body", "byte order mark"),
}


@pytest.mark.parametrize("name", [*BODIES, *SHAPES])
def test_bad_bodies(api: Api, client: httpx.Client, name: str) -> None:
    content, headers, status, kind, message = {**BODIES, **SHAPES}[name]
    before = api.count("job_request")
    body = content() if callable(content) else content
    answer = client.post("/v1/executions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:millstream:problem:{kind}"
    assert message in answer.json()["detail"]
    assert api.count("job_request") == before


def test_a_slow_body_is_given_up(api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twentieth: some bytes, then nothing."""
    monkeypatch.setattr(bodies, "WITHIN_S", 0.2)
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = (
            f"POST /v1/executions HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
        )
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        answer = b""
        while piece := connection.recv(65_536):  # until the server closes
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:millstream:problem:body-timeout" in answer


def test_the_matrix_is_whole() -> None:
    assert len(BODIES) + 1 == 20


# ---------------------------------------------------------------- idempotency


def test_the_same_post_fifty_times_at_once_is_one_execution(api: Api, client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "fifty"}

    def post(_: int) -> tuple[int, bytes]:
        answer = client.post("/v1/executions", json=noop(), headers=headers)
        return answer.status_code, answer.content

    with ThreadPoolExecutor(50) as threads:
        answers = set(threads.map(post, range(50)))
    assert len(answers) == 1
    status, body = answers.pop()
    assert status == 202
    id = json.loads(body)["execution_id"]
    assert len([r for r in api.outgoing("job.requested") if r.execution_id == id]) == 1


def test_two_instances_agree_on_one_execution(api: Api, client: httpx.Client, tmp_path: Path) -> None:
    """Each round sends the same key with two bodies through both: one body wins, everywhere."""
    with serving(api.database_url, tmp_path) as second, ThreadPoolExecutor(8) as threads:
        key = client.headers["authorization"].removeprefix("Bearer ")
        with second.client(key) as other:
            for number in range(10):
                headers = {"Idempotency-Key": f"both-{number}"}

                def post(each: int, headers: dict[str, str] = headers) -> tuple[int, str]:
                    body = noop(tag=str(each // 2 % 2))
                    answer = (client, other)[each % 2].post("/v1/executions", json=body, headers=headers)
                    return answer.status_code, answer.json().get("execution_id", "")

                answers = list(threads.map(post, range(8)))
                assert sorted(status for status, _ in answers) == [202] * 4 + [409] * 4
                (id,) = {id for status, id in answers if status == 202}
                assert len([r for r in api.outgoing("job.requested") if r.execution_id == id]) == 1


def test_another_body_under_the_same_key_is_a_conflict(api: Api, client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "conflict"}
    first = client.post("/v1/executions", json=noop(tag="a"), headers=headers)
    other = client.post("/v1/executions", json=noop(tag="b"), headers=headers)
    assert (first.status_code, other.status_code) == (202, 409)
    assert other.json()["type"] == "urn:millstream:problem:idempotency-conflict"
    again = client.post(
        "/v1/executions", content=b'{ "tag":"a", "jobType":"noop" }', headers={**headers, **JSON}
    )
    assert (again.status_code, again.content) == (202, first.content)


def test_keys_belong_to_a_tenant_and_a_principal(api: Api, client: httpx.Client) -> None:
    found = set()
    for tenant, principal in [("acme", "alice"), ("acme", "bob"), ("other", "alice")]:
        with api.client(api.key("author", tenant, principal)) as each:
            answer = each.post("/v1/executions", json=noop(), headers={"Idempotency-Key": "shared"})
            found.add(answer.json()["execution_id"])
    assert len(found) == 3


def test_what_was_accepted_stays_accepted_when_its_dataset_goes(api: Api, client: httpx.Client) -> None:
    client.put("/v1/datasets/passing", content=FLIGHTS).raise_for_status()
    body = {"jobType": "export", "dataset": "passing"}
    headers = {"Idempotency-Key": "passing"}
    first = client.post("/v1/executions", json=body, headers=headers)
    assert client.delete("/v1/datasets/passing").status_code == 204
    assert client.post("/v1/executions", json=body, headers=headers).content == first.content
    other = client.post("/v1/executions", json={**body, "tag": "x"}, headers=headers)
    assert other.status_code == 409
    assert client.post("/v1/executions", json=body).status_code == 400


@pytest.mark.parametrize("value", ["", "a" * 256, "a\tb"], ids=["empty", "long", "tab"])
def test_an_unusable_key_is_refused(client: httpx.Client, value: str) -> None:
    answer = client.post("/v1/executions", json=noop(), headers={"Idempotency-Key": value})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "Idempotency-Key"


# ---------------------------------------------------------------- callbacks and secrets


def with_callback(**callback: Any) -> dict[str, Any]:
    return noop(callback={"url": "https://example.com/hook", **callback})


@pytest.mark.parametrize(
    ("callback", "pointer"),
    [
        ({"events": ["on-fire"]}, "callback.events[0]"),
        ({"url": "ftp://example.com"}, "callback.url"),
        ({"url": "https://u:p@example.com"}, "callback.url"),
        ({"method": "DELETE"}, "callback.method"),
        ({"headers": {"Host": "x"}}, 'callback.headers["Host"]'),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, 'callback.headers["X-A"]'),
        ({"secret": "hush"}, "callback.secret"),
    ],
)
def test_bad_callbacks(client: httpx.Client, callback: dict[str, Any], pointer: str) -> None:
    answer = client.post("/v1/executions", json=with_callback(**callback))
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_secrets_are_sealed_before_they_are_stored(
    api: Api, client: httpx.Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = with_callback(
        events=["on-execution-complete"], headers={"Authorization": CANARY}, secret=WEBHOOK_SECRET
    )
    body["headers"] = {"Cookie": f"session={CANARY}"}
    id = client.post("/v1/executions", json=body).json()["execution_id"]
    refused = with_callback(headers={"X": CANARY}, secret=CANARY)
    assert CANARY not in client.post("/v1/executions", json=refused).text
    view = client.get(f"/v1/executions/{id}").text

    record = next(r for r in api.outgoing("job.requested") if r.execution_id == id)
    callback, sealer = record.callbacks[0], Sealer(SEALING_KEYS)
    assert (
        sealer.open(callback.headers["Authorization"], "acme", sealing.callback_header("authorization"))
        == CANARY
    )
    assert sealer.open(callback.secret, "acme", sealing.CALLBACK_SECRET) == WEBHOOK_SECRET
    assert sealer.open(record.headers["Cookie"], "acme", sealing.request_header("cookie")).endswith(CANARY)

    written = "".join(capfd.readouterr()) + view + dump(api)
    for secret in (CANARY, WEBHOOK_SECRET, CANARY.encode().hex(), WEBHOOK_SECRET.encode().hex()):
        assert secret not in written


def dump(api: Api) -> str:
    """Every row of every table of api as text; bytea shows as hex."""
    tables = api.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'api'")
    return "".join(str(api.rows(f"SELECT t::text FROM api.{name} AS t")) for (name,) in tables)


# ---------------------------------------------------------------- a database that hangs


def test_a_database_that_hangs_is_answered_in_time(api: Api, client: httpx.Client) -> None:
    headers = {"Idempotency-Key": "hanging"}
    with api.cursor() as cursor:
        cursor.execute("LOCK TABLE api.job_request IN ACCESS EXCLUSIVE MODE")
        for answer in (
            client.post("/v1/executions", json=noop(), headers=headers),
            client.get("/v1/executions"),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.elapsed.total_seconds() < 9
    again = client.post("/v1/executions", json=noop(), headers=headers)
    assert again.status_code == 202
    assert (
        len([r for r in api.outgoing("job.requested") if r.execution_id == again.json()["execution_id"]]) == 1
    )
