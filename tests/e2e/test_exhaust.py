"""S1's flow from end to end: its sample request, a worker, one signed file for each batch of its channels."""

import csv
import io
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest

from examples.learning import data
from tests.local import Local
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

SAMPLE = (Path(__file__).parents[2] / "examples" / "learning" / "submit.json").read_bytes()
COURSES = json.loads(SAMPLE)["request"]["jobConfig"]["contentFilters"]["request"]["filters"]["identifier"]
PREFIX = "/data/v3/job/request"
WITHIN_S = 60


@pytest.fixture(scope="module")
def client(local: Local) -> Iterator[httpx.Client]:
    command = [sys.executable, "-m", "examples.learning", "--data", str(local.folder.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert "public.assessment_score: 2571 rows" in done.stdout
    headers = {"Authorization": f"Bearer {local.api_key}"}
    with httpx.Client(base_url=local.state["api_url"], headers=headers, trust_env=False, timeout=30) as made:
        yield made


def ended(client: httpx.Client, tag: str, id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        answer = client.get(f"{PREFIX}/read/{tag}/{id}")
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()["result"]
        return job if job["status"] not in ("SUBMITTED", "PROCESSING") else None

    found = until(look, WITHIN_S, f"the end of {id}")
    assert found is not None
    return found


def submitted(client: httpx.Client, content: bytes) -> dict[str, Any]:
    answer = client.post(f"{PREFIX}/submit", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()["result"]
    return job


def test_the_sample_yields_a_report_for_each_batch(local: Local, client: httpx.Client) -> None:
    first = submitted(client, SAMPLE)
    assert submitted(client, SAMPLE)["request_id"] == first["request_id"]
    job = ended(client, "client-1", first["request_id"])
    ids = data.batches(["TPD", "NCFCOPY"], COURSES)
    assert (job["status"], job["attempts"]) == ("COMPLETED", 0)
    assert job["request"]["batchFilters"] == {"ids": ids, "channels": ["TPD", "NCFCOPY"]}
    names = [re.search(r"/files/[0-9a-f]{40}/([^?]+)\?", url) for url in job["downloadURLs"]]
    assert [name and name[1] for name in names] == [f"reports-{id}.csv" for id in ids]
    assert job["job_stats"]["dt_job_submitted"] <= job["job_stats"]["dt_job_completed"] <= job["last_updated"]
    assert job["expiresAt"] // 1000 > job["last_updated"]
    for id, url in zip(ids, job["downloadURLs"], strict=True):
        found = list(csv.reader(io.StringIO(httpx.get(url, trust_env=False).raise_for_status().text)))
        expected = [
            [str(row[index]) for index in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13)]
            for table, row in data.rows()
            if table == "assessment_score" and row[6] == id
        ]
        assert found[0][:3] == ["course_id", "course_name", "framework"]
        assert "created_on" not in found[0]
        assert sorted(found[1:]) == sorted(expected)
    listed = client.get(f"{PREFIX}/list/client-1").json()["result"]
    assert listed["count"] == 1
    assert listed["jobs"][0]["request"] == job["request"]


def test_one_batch_one_course_and_what_does_not_exist(local: Local, client: httpx.Client) -> None:
    (batch, *_) = data.batches(["NTP"], COURSES)
    wishes: dict[str, dict[str, Any]] = {
        "batch": {"batchFilters": [batch]},
        "course": {"contentFilters": {"request": {"filters": {"identifier": COURSES[:1]}}}},
        "nothing": {"batchFilters": ["NIX"]},
    }
    jobs = {}
    for name, config in wishes.items():
        body = json.loads(SAMPLE)
        body["params"]["msgid"] = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        body["request"] |= {"tag": "client-2", "jobId": "course-report", "jobConfig": config}
        jobs[name] = submitted(client, json.dumps(body).encode())["request_id"]
    found = {name: ended(client, "client-2", id) for name, id in jobs.items()}
    assert found["batch"]["request"]["batchFilters"] == {"ids": [batch], "channels": []}
    ids = data.batches(data.CHANNELS, COURSES[:1])
    assert found["course"]["request"]["batchFilters"] == {"ids": ids, "channels": []}
    assert len(found["course"]["downloadURLs"]) == len(ids) == 8
    assert (found["nothing"]["status"], found["nothing"]["downloadURLs"]) == ("FAILED", [])
    assert found["nothing"]["expiresAt"] is None
    assert 'found "NIX"' in found["nothing"]["err_message"]


def test_only_api_writes_the_table(local: Local) -> None:
    with psycopg2.connect(local.state["database_url"]) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT grantee FROM information_schema.role_table_grants WHERE table_schema = 'api'"
            " AND table_name = 'job_request' AND privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')"
        )
        writers = {role for (role,) in cursor.fetchall()}
    connection.close()
    assert writers == {"ms_api", "ms_api_owner"}  # the owner serves nothing: it is for migrations
