"""S1's data-exhaust API over a real database: envelopes, units, tags, and the answer to all that is wrong."""

import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.contracts import commands, events
from services.contracts.commands import File
from services.contracts.events import ExecutionAccepted, PlannedStep
from services.runtime.entropy import LocalClock
from tests.serving import TTL_S, Api, facts

pytestmark = pytest.mark.postgres

FOLDER = Path(__file__).parents[2] / "examples" / "learning"
SAMPLE = (FOLDER / "submit.json").read_bytes()
REPORT = "assessment-score-report"
SUBMIT = "/data/v3/job/request/submit"
JSON = {"Content-Type": "application/json"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def client(client: httpx.Client) -> httpx.Client:
    """An operator whose tenant has the report of the sample."""
    define(client)
    return client


def define(client: httpx.Client) -> None:
    definition = (FOLDER / f"{REPORT}.yaml").read_bytes()
    headers = {"Content-Type": "application/yaml"}
    client.put(f"/v1/datasets/{REPORT}", content=definition, headers=headers).raise_for_status()


def asked(**changes: Any) -> dict[str, Any]:
    """A fresh message; `changes` go into its request."""
    body: dict[str, Any] = json.loads(SAMPLE)
    body["params"]["msgid"] = str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(changes)))
    body["request"].update(changes)
    return body


def result(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def complete(api: Api, id: str, at: datetime) -> None:
    """What the manager and a worker would say of the sample."""
    record: commands.JobRequested = next(r for r in api.outgoing("job.requested") if r.execution_id == id)
    plan = (PlannedStep(name="export", kind="EXPORT", parameters={}, timeout_s=600, max_attempts=5),)
    of = (facts(id, sequence) | {"occurred_at": at} for sequence in range(1, 20))
    files = [
        File(name=name, key="k", batch=None, rows=1, bytes=2, sha256="s", content_type="text/csv")
        for name in ("reports-b2.csv", "reports-b1.csv", "manifest.json")
    ]
    output = {"batch_filters": {"ids": ["b1", "b2"], "channels": ["TPD", "NCFCOPY"]}}
    api.project(
        [
            ExecutionAccepted(**next(of), request=record, request_hash="h", plan=plan),
            events.ExecutionStarted(**next(of)),
            events.StepRunning(**next(of), step="export", attempt=1, take_id="t", worker="w"),
            events.StepRetryScheduled(
                **next(of), step="export", attempt=1, reason="r", message="m", retry_at=at
            ),
            events.StepRunning(**next(of), step="export", attempt=2, take_id="u", worker="w"),
            events.StepCompleted(**next(of), step="export", attempt=2, output=output),
            *(events.FilePublished(**next(of), step="export", file=file) for file in files),
            events.ExecutionCompleted(**next(of), files=3, rows=3, bytes=6),
        ]
    )


def test_the_sample_is_taken_as_it_is_written(api: Api, client: httpx.Client) -> None:
    answer = client.post(SUBMIT, content=SAMPLE, headers=JSON)
    body = answer.json()
    assert list(body) == ["id", "ver", "ts", "params", "responseCode", "result"]
    assert (body["id"], body["ver"]) == ("ekstep.analytics.job.request.submit", "1.0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", body["ts"])
    assert body["params"] == {
        "resmsgid": "4f04da60-1e24-4d31-aa7b-1daf91c46341",
        "status": "successful",
        "err": None,
        "errmsg": None,
    }
    assert body["responseCode"] == "OK"
    job = body["result"]
    assert re.fullmatch(r"[0-9a-f]{40}", job["request_id"])
    assert (job["tag"], job["status"], job["attempts"]) == ("client-1", "SUBMITTED", 0)
    assert (job["downloadURLs"], job["expiresAt"]) == ([], None)
    request = json.loads(SAMPLE)["request"]
    assert job["request"] == {
        "jobId": REPORT,
        "output_format": "csv",
        **{name: request["jobConfig"][name] for name in ("batchFilters", "contentFilters", "reportPath")},
    }
    now_s = LocalClock().now().timestamp()
    assert abs(job["job_stats"]["dt_job_submitted"] - now_s) < 60
    assert abs(job["last_updated"] - now_s) < 60
    record = next(r for r in api.outgoing("job.requested") if r.execution_id == job["request_id"])
    assert (record.job_type, record.definition.id, record.tag) == ("export", REPORT, "client-1")


def test_both_addresses_and_every_repetition_are_one_request(api: Api, client: httpx.Client) -> None:
    body = asked(tag="again")
    before = api.count("job_request")
    with ThreadPoolExecutor(4) as pool:
        paths = [SUBMIT, "/job/request/submit"] * 4
        ids = {
            result(answer)["request_id"] for answer in pool.map(lambda p: client.post(p, json=body), paths)
        }
    assert len(ids) == 1
    assert api.count("job_request") == before + 1
    (id,) = ids
    later = {**body, "ts": "2016-12-07T12:40:41+0530"}  # S1's clients stamp each try
    loud = {**later, "params": {"msgid": body["params"]["msgid"].upper()}}
    for same in (later, loud):
        assert result(client.post(SUBMIT, json=same))["request_id"] == id
    other = client.post(SUBMIT, json={**body, "request": {**body["request"], "output_format": None}})
    assert (other.status_code, other.json()["params"]["err"]) == (409, "IDEMPOTENCY_CONFLICT")
    wanted = "params.msgid was used with another body; use a new one for a new request"
    assert other.json()["params"]["errmsg"] == wanted


def test_a_body_of_sunbirds_own_clients_is_taken_and_what_nobody_knows_is_named(client: httpx.Client) -> None:
    body = asked(tag="sunbird", requestedBy="user-1")
    body |= {"id": "ekstep.analytics.data.out", "ts": "2016-12-07T12:40:40+0530", "extra": 1}
    body["params"] |= {"did": "device-1", "client_key": "k", "msgid": body["params"]["msgid"].upper()}
    answer = client.post(SUBMIT, json=body)
    assert result(answer)["status"] == "SUBMITTED"
    ignored = ["extra", "params.did", "params.client_key", "request.requestedBy"]
    assert answer.json()["params"]["ignored"] == ignored
    assert "ignored" not in client.post(SUBMIT, json=asked(tag="plain")).json()["params"]


@pytest.mark.parametrize("name", ["filter", "batchFilters", "datasetConfig", "encryptionKey"])
def test_what_narrows_or_protects_a_report_is_never_ignored(client: httpx.Client, name: str) -> None:
    body = failed(client.post(SUBMIT, json=asked(**{name: ["x"]})), 400)
    assert body["result"]["errors"][0]["pointer"] == f"request.{name}"


def test_a_list_is_as_long_as_asked(client: httpx.Client) -> None:
    made = [result(client.post(SUBMIT, json=asked(tag="short", jobConfig=config(n)))) for n in range(3)]
    found = result(client.get("/job/request/list/short?limit=2"))
    assert found["count"] == 3
    assert [job["request_id"] for job in found["jobs"]] == [job["request_id"] for job in made[:0:-1]]
    for bad in ("0", "201", "many", ""):
        assert failed(client.get(f"/job/request/list/short?limit={bad}"), 400, "list")


def config(number: int) -> dict[str, Any]:
    return {"batchFilters": [f"channel-{number}"]}


def test_what_was_accepted_is_answered_though_its_report_is_gone(client: httpx.Client) -> None:
    definition = (FOLDER / "course-report.yaml").read_bytes()
    client.put("/v1/datasets/passing", content=definition, headers={"Content-Type": "application/yaml"})
    body = asked(tag="passing", jobId="passing")
    id = result(client.post(SUBMIT, json=body))["request_id"]
    assert client.delete("/v1/datasets/passing").status_code == 204
    assert result(client.post(SUBMIT, json=body))["request_id"] == id


def test_a_finished_request_as_the_source_shows_it(api: Api, client: httpx.Client) -> None:
    id = result(client.post(SUBMIT, json=asked(tag="dev-portal")))["request_id"]
    at = LocalClock().now().replace(microsecond=0) + timedelta(seconds=30)
    complete(api, id, at)
    for prefix in ("/data/v3", ""):
        body = client.get(f"{prefix}/job/request/read/dev-portal/{id}").json()
        assert body["id"] == "ekstep.analytics.job.request.info"
        assert UUID.fullmatch(body["params"]["resmsgid"])
    job = body["result"]
    assert (job["status"], job["attempts"]) == ("COMPLETED", 1)
    assert job["request"]["batchFilters"] == {"ids": ["b1", "b2"], "channels": ["TPD", "NCFCOPY"]}
    assert job["last_updated"] == int(at.timestamp())
    assert job["job_stats"]["dt_job_completed"] == int(at.timestamp())
    assert job["job_stats"]["execution_time"] == 0
    places = [url.partition("?")[0] for url in job["downloadURLs"]]
    assert places == [f"/files/{id}/reports-b1.csv", f"/files/{id}/reports-b2.csv"]
    expires = {re.search(r"expires=(\d+)", url)[1] for url in job["downloadURLs"]}  # type: ignore[index]
    assert {int(text) * 1000 for text in expires} == {job["expiresAt"]}
    left_s = job["expiresAt"] / 1000 - LocalClock().now().timestamp()
    assert TTL_S - 60 < left_s <= TTL_S


def test_the_list_has_the_newest_and_the_true_count(api: Api, client: httpx.Client) -> None:
    ids = [
        result(client.post(SUBMIT, json=asked(tag="many", output_format=f)))["request_id"]
        for f in ("csv", None)
    ]
    with api.cursor() as cursor:
        cursor.execute(
            "INSERT INTO api.job_request (execution_id, tenant, tag, submitted_at)"
            " SELECT lpad(to_hex(n), 40, '0'), 'acme', 'many', now() - n * interval '1 day'"
            " FROM generate_series(1, 300) AS n"
        )
    body = client.get("/data/v3/job/request/list/many").json()
    assert body["id"] == "ekstep.analytics.job.request.list"
    assert (body["result"]["count"], len(body["result"]["jobs"])) == (302, 200)
    assert [job["request_id"] for job in body["result"]["jobs"][:2]] == ids[::-1]
    assert result(client.get("/job/request/list/never-used")) == {"count": 0, "jobs": []}


def searched(client: httpx.Client, limit: int | None = None, **filters: Any) -> Any:
    body = asked()
    body["id"] = "ekstep.analytics.job.request.search"
    body["request"] = {"filters": filters, "limit": limit}
    answer = client.post("/data/v3/job/request/search", json=body)
    assert answer.json()["id"] == "ekstep.analytics.job.request.search"
    return result(answer)


def test_search_by_report_status_day_and_channel(api: Api, client: httpx.Client) -> None:
    headers = {"X-Channel-ID": "TPD"}
    id = result(client.post(SUBMIT, json=asked(tag="searched"), headers=headers))["request_id"]
    today = LocalClock().now().astimezone(UTC).date()
    assert searched(client, channel="TPD") == searched(client, channel="TPD", requestedDate=str(today))
    assert [job["request_id"] for job in searched(client, channel="TPD")["jobs"]] == [id]
    assert searched(client, channel="TPD", requestedDate=str(today - timedelta(days=1)))["count"] == 0
    assert searched(client, channel="TPD", jobId=REPORT, status="SUBMITTED")["count"] == 1
    assert searched(client, channel="TPD", status="FAILED")["count"] == 0
    every = searched(client, limit=1, jobId=REPORT)
    assert every["count"] > 1
    assert len(every["jobs"]) == 1


def test_search_knows_the_whole_name_of_a_report(client: httpx.Client) -> None:
    names = ["r" * 99 + end for end in "ab"]  # longer than S1's column job_id
    definition = (FOLDER / f"{REPORT}.yaml").read_bytes()
    for name in names:
        headers = {"Content-Type": "application/yaml"}
        client.put(f"/v1/datasets/{name}", content=definition, headers=headers).raise_for_status()
    ids = [result(client.post(SUBMIT, json=asked(tag="long", jobId=n)))["request_id"] for n in names]
    for name, id in zip(names, ids, strict=True):
        assert [job["request_id"] for job in searched(client, jobId=name)["jobs"]] == [id]
    assert searched(client, jobId="r" * 50)["count"] == 0


def test_the_same_tag_of_two_tenants_is_two_tags(api: Api, client: httpx.Client) -> None:
    """Else a stranger could take a tag first, and a refusal would say which tags others use."""
    id = result(client.post(SUBMIT, json=asked(tag="ours")))["request_id"]
    with api.client(api.key(tenant="other")) as stranger:
        define(stranger)
        assert stranger.get(f"/job/request/read/ours/{id}").status_code == 404
        assert result(stranger.get("/job/request/list/ours"))["count"] == 0
        theirs = result(stranger.post(SUBMIT, json=asked(tag="ours")))["request_id"]
        ways: tuple[dict[str, Any], ...] = ({}, {"runAt": None})  # before the framework, and in it
        for way in ways:
            body = {"jobType": "noop", "tag": "ours", **way}
            assert stranger.post("/v1/executions", json=body).status_code == 202
        assert result(stranger.get("/job/request/list/ours"))["count"] == 3
        assert stranger.get(f"/job/request/read/ours/{theirs}").status_code == 200
    assert [job["request_id"] for job in result(client.get("/job/request/list/ours"))["jobs"]] == [id]
    assert client.get(f"/job/request/read/ours/{theirs}").status_code == 404


def test_a_viewer_reads_and_does_not_ask(api: Api, client: httpx.Client) -> None:
    with api.client(api.key("viewer")) as viewer:
        answer = viewer.post(SUBMIT, json=asked(tag="viewer"))
        assert (answer.status_code, answer.json()["params"]["err"]) == (403, "FORBIDDEN")
        assert result(viewer.get("/job/request/list/many"))["count"] == 302


def failed(answer: httpx.Response, status: int, name: str = "submit") -> Any:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["id", "ver", "ts", "params", "responseCode", "result"]
    assert body["id"] == f"ekstep.analytics.job.request.{name}"
    assert body["params"]["status"] == "failed"
    assert UUID.fullmatch(body["params"]["resmsgid"])
    return body


def test_the_surplus_brace_is_told_by_line_and_column(api: Api, client: httpx.Client) -> None:
    before = api.count("job_request")
    body = failed(client.post(SUBMIT, content=SAMPLE.rstrip() + b"\n}\n", headers=JSON), 400)
    line = SAMPLE.rstrip().count(b"\n") + 2
    assert body["params"]["err"] == "MALFORMED_BODY"
    assert body["params"]["errmsg"] == f"the body is not JSON: Extra data (line {line}, column 1)"
    assert body["responseCode"] == "CLIENT_ERROR"
    assert api.count("job_request") == before


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "id": ({"id": "x"}, "id", 'expected "ekstep.analytics.job.request.submit", found "x"'),
    "version": ({"ver": 1.0}, "ver", 'expected "1.0", found 1.0'),
    "no offset": (
        {"ts": "2016-12-07T12:40:40"},
        "ts",
        'expected an instant with offset such as "2016-12-07T12:40:40+05:30", found "2016-12-07T12:40:40"',
    ),
    "no msgid": ({"params": {}}, "params.msgid", "expected a UUID, one for each request, found nothing"),
    "msgid": ({"params": {"msgid": "7"}}, "params.msgid", 'expected a UUID, one for each request, found "7"'),
    "no request": ({"request": None}, "request", "expected an object, found nothing"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_envelope(client: httpx.Client, case: tuple[dict[str, Any], str, str]) -> None:
    changes, pointer, message = case
    body = failed(client.post(SUBMIT, json={**asked(), **changes}), 400)
    assert {"pointer": pointer, "message": message} in body["result"]["errors"]


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "tag": (
        {"tag": "a/b"},
        "request.tag",
        'expected 1 to 50 of A-Z a-z 0-9 . _ - beginning with a letter or digit, found "a/b"',
    ),
    "long tag": (
        {"tag": "t" * 51},
        "request.tag",
        f'expected 1 to 50 of A-Z a-z 0-9 . _ - beginning with a letter or digit, found "{"t" * 51}"',
    ),
    "report": (
        {"jobId": "nix"},
        "request.jobId",
        'unknown report "nix"; GET /v1/datasets lists them',
    ),
    "format": (
        {"output_format": "pdf"},
        "request.output_format",
        f'unknown format "pdf"; known: csv (GET /v1/datasets/{REPORT})',
    ),
    "filters": (
        {"jobConfig": {"batchFilters": []}},
        "request.jobConfig.batchFilters",
        "expected a list of 1 to 1000, found 0 entries",
    ),
    "nothing asked": (
        {"jobConfig": {}},
        "request.jobConfig.batches",
        (
            "expected a list of 1 to 1000 values of batch_id, found nothing: the dataset declares none"
            f" (GET /v1/datasets/{REPORT})"
        ),
    ),
    "content": (
        {"jobConfig": {"batchFilters": ["TPD"], "contentFilters": {"request": {"limit": "all"}}}},
        "request.jobConfig.contentFilters.request.limit",
        'expected a whole number from 1 to 100000, found "all"',
    ),
    "config": (
        {"jobConfig": {"format": "csv"}},
        "request.jobConfig.format",
        "unknown field; known: batchFilters, contentFilters, reportPath, batches, columns, filters",
    ),
}


@pytest.mark.parametrize("case", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request(api: Api, client: httpx.Client, case: tuple[dict[str, Any], str, str]) -> None:
    changes, pointer, message = case
    before = api.count("job_request")
    body = failed(client.post(SUBMIT, json=asked(**changes)), 400)
    assert body["result"]["errors"] == [{"pointer": pointer, "message": message}]
    assert api.count("job_request") == before
    assert body["params"]["resmsgid"] == asked(**changes)["params"]["msgid"]


def test_a_bad_search(client: httpx.Client) -> None:
    body = asked()
    body["id"] = "ekstep.analytics.job.request.search"
    body["request"] = {"filters": {"status": "DONE", "requestedDate": "20161207", "colour": 1}, "limit": 201}
    errors = failed(client.post("/job/request/search", json=body), 400, "search")["result"]["errors"]
    assert [error["pointer"] for error in errors] == [
        "request.filters.colour",
        "request.filters.status",
        "request.filters.requestedDate",
        "request.limit",
    ]


def test_every_other_error_is_an_envelope_too(api: Api, client: httpx.Client) -> None:
    big = b" " * 200_000
    assert failed(client.post(SUBMIT, content=big, headers=JSON), 413)["responseCode"] == "CLIENT_ERROR"
    failed(client.post(SUBMIT, content=SAMPLE, headers={"Content-Type": "text/xml"}), 415)
    answer = client.get(SUBMIT)
    failed(answer, 405)
    assert answer.headers["allow"] == "POST"
    assert failed(client.get("/job/request/read/ours/7"), 404, "info")["responseCode"] == "RESOURCE_NOT_FOUND"
    failed(client.get(f"/data/v3/job/request/read/ours/{'0' * 40}"), 404, "info")
    failed(client.get("/data/v3/job/request/nix"), 404, "info")
    failed(client.post(SUBMIT, json=asked(), headers={"X-Channel-ID": "c" * 51}), 400)
    with api.client("") as nobody:
        answer = nobody.get("/job/request/list/ours")
        assert failed(answer, 401, "list")["responseCode"] == "UNAUTHORIZED"
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_fault_of_ours_is_an_envelope(api: Api, client: httpx.Client) -> None:
    id = result(client.post(SUBMIT, json=asked(tag="broken")))["request_id"]
    with api.cursor() as cursor:
        cursor.execute("UPDATE api.job_request SET steps = '[{}]' WHERE execution_id = %s", (id,))
    body = failed(client.get(f"/job/request/read/broken/{id}"), 500, "info")
    assert (body["responseCode"], body["params"]["err"]) == ("SERVER_ERROR", "INTERNAL_ERROR")


@pytest.mark.usefixtures("client")
def test_a_database_that_hangs_is_an_envelope(api: Api) -> None:
    body = deepcopy(asked(tag="slow"))
    # Connections of its own: the server has closed the one on which a fault of ours was told.
    with api.client() as patient:
        with api.cursor() as cursor:
            cursor.execute("LOCK TABLE api.job_request IN ACCESS EXCLUSIVE MODE")
            answer = patient.post(SUBMIT, json=body)
        assert failed(answer, 503)["responseCode"] == "SERVER_ERROR"
        assert answer.headers["retry-after"] == "1"
        assert result(patient.post(SUBMIT, json=body))["status"] == "SUBMITTED"
