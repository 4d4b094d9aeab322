"""A tenant's quota of executions that have not ended, by every route that leads to one."""

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.contracts import events
from services.runtime.settings import Quota
from tests.serving import Api, accepted, facts, serving
from tests.stack import Stack

pytestmark = pytest.mark.postgres

LIMIT = 5
LEARNING = Path(__file__).parents[2] / "examples" / "learning"
SUBMIT = "/data/v3/job/request/submit"
_number = itertools.count(1)


@pytest.fixture(scope="module")
def api(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    quota = Quota(executions=LIMIT, tenants={"large": 40})
    with serving(stack.fresh_database(), tmp_path_factory.mktemp("api"), quota=quota) as served:
        yield served


@pytest.fixture
def tenant() -> str:
    """A tenant of the test's own."""
    return f"t{next(_number)}"


@pytest.fixture
def client(api: Api, tenant: str) -> Iterator[httpx.Client]:
    with api.client(api.key(tenant=tenant)) as made:
        yield made


def submit(client: httpx.Client, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/v1/executions", json={"jobType": "noop"}, headers=headers)


def filled(client: httpx.Client, count: int = LIMIT) -> list[str]:
    """As many as the tenant may have."""
    answers = [submit(client) for _ in range(count)]
    assert [answer.status_code for answer in answers] == [202] * count
    return [answer.json()["execution_id"] for answer in answers]


def ended(api: Api, tenant: str, id: str, status: str = "failed") -> None:
    told: Any = events.ExecutionFailed(
        **facts(id, 3, tenant), reason="r", message="m", step=None, dead_letter=None
    )
    if status == "completed":
        told = events.ExecutionCompleted(**facts(id, 3, tenant), files=0, rows=0, bytes=0)
    api.project([accepted(id, tenant), events.ExecutionStarted(**facts(id, 2, tenant)), told])


def load(api: Api, tenant: str) -> tuple[int, int]:
    """What is counted, and what the table holds."""
    counted = api.rows("SELECT coalesce(sum(open), 0)::int FROM api.tenant_load WHERE tenant = %s", tenant)
    held = api.rows(
        "SELECT count(*) FROM api.job_request"
        " WHERE tenant = %s AND state IN ('pending', 'running', 'waiting')",
        tenant,
    )
    return counted[0][0], held[0][0]


def check_refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    assert answer.json()["type"] == "urn:millstream:problem:quota-exceeded"
    assert f"at one time, {LIMIT} (MILLSTREAM_QUOTA__EXECUTIONS" in answer.json()["detail"]


def test_a_submit_over_the_quota_is_refused_until_one_has_ended(
    api: Api, client: httpx.Client, tenant: str
) -> None:
    first, *_ = filled(client)
    check_refused(submit(client))
    assert load(api, tenant) == (LIMIT, LIMIT)
    ended(api, tenant, first)
    assert load(api, tenant) == (LIMIT - 1, LIMIT - 1)
    filled(client, 1)
    check_refused(submit(client))


def test_what_was_accepted_is_answered_again_although_there_is_no_room(client: httpx.Client) -> None:
    id = submit(client, "mine").json()["execution_id"]
    filled(client, LIMIT - 1)
    again = submit(client, "mine")
    assert (again.status_code, again.json()["execution_id"]) == (202, id)
    check_refused(submit(client, "another"))


def test_another_tenant_is_not_held_up_and_may_have_a_quota_of_its_own(
    api: Api, client: httpx.Client
) -> None:
    filled(client)
    check_refused(submit(client))
    with api.client(api.key(tenant="large")) as large:
        filled(large, 40)
        assert submit(large).status_code == 429


def test_many_at_once_never_exceed_the_quota_whichever_api_takes_them(api: Api, tmp_path: Path) -> None:
    key = api.key(tenant="raced")
    with (
        serving(api.database_url, tmp_path, quota=api.parts.quota) as other,
        api.client(key) as one,
        httpx.Client(base_url=other.url, headers=one.headers, timeout=15) as two,
        ThreadPoolExecutor(16) as pool,
    ):
        statuses = [answer.status_code for answer in pool.map(submit, [one, two] * 64)]
    assert (statuses.count(202), statuses.count(429)) == (LIMIT, 128 - LIMIT)
    assert load(api, "raced") == (LIMIT, LIMIT)


def test_a_service_request_is_refused_likewise(client: httpx.Client) -> None:
    body = {"steps": [{"step_name": "a", "step_type": "NOOP"}]}
    client.put("/v1/pipelines/one", json=body).raise_for_status()
    filled(client)
    check_refused(client.post("/v1/requests", json={"pipeline": "one"}))
    check_refused(client.post("/v1/executions", json={"jobType": "pipeline", "pipeline": "one"}))


def test_a_report_request_of_the_data_exhaust_is_refused_in_its_envelope(client: httpx.Client) -> None:
    report = "assessment-score-report"
    headers = {"Content-Type": "application/yaml"}
    definition = (LEARNING / f"{report}.yaml").read_bytes()
    client.put(f"/v1/datasets/{report}", content=definition, headers=headers).raise_for_status()
    body = json.loads((LEARNING / "submit.json").read_bytes())
    filled(client)
    answer = client.post(SUBMIT, json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    assert (answer.json()["responseCode"], answer.json()["params"]["err"]) == (
        "CLIENT_ERROR",
        "QUOTA_EXCEEDED",
    )


def test_a_rerun_is_refused_and_one_that_nobody_has_answered_yet_takes_room(
    api: Api, client: httpx.Client, tenant: str
) -> None:
    first, second, *_ = filled(client)
    check_refused(client.post(f"/v1/executions/{second}/rerun"))
    ended(api, tenant, first)
    command = rerun(api, client, first)
    assert load(api, tenant) == (LIMIT, LIMIT - 1)
    check_refused(client.post(f"/v1/executions/{second}/rerun"))
    check_refused(submit(client))
    told = {**facts(first, 4, tenant), "causation_id": command.command_id}
    again = events.ExecutionRerun(**told, rerun_id=command.rerun_id, requested_by="alice")
    api.project([again])
    assert load(api, tenant) == (LIMIT, LIMIT), "it is counted once, by its row"
    api.project([accepted(command.rerun_id, tenant)])
    assert load(api, tenant) == (LIMIT, LIMIT)
    ended(api, tenant, command.rerun_id)
    assert load(api, tenant) == (LIMIT - 1, LIMIT - 1)


def test_a_rerun_that_the_manager_refuses_gives_its_room_back(
    api: Api, client: httpx.Client, tenant: str
) -> None:
    first, *_ = filled(client)
    ended(api, tenant, first)
    command = rerun(api, client, first)
    told = {**facts(first, 4, tenant), "causation_id": command.command_id}
    refused = events.CommandRefused(
        **told, command="rerun", requested_by="alice", reason="expired", message="too old"
    )
    api.project([refused])
    assert load(api, tenant) == (LIMIT - 1, LIMIT - 1)


def rerun(api: Api, client: httpx.Client, id: str) -> Any:
    """A rerun that waits for its answer."""
    assert client.post(f"/v1/executions/{id}/rerun").status_code == 202
    (command,) = [record for record in api.outgoing("execution.commands") if record.execution_id == id]
    return command


def test_rerun_if_failed_is_refused_likewise(api: Api, client: httpx.Client, tenant: str) -> None:
    asked: Any = {"json": {"jobType": "noop", "onDuplicate": "rerun_if_failed"}}
    asked["headers"] = {"Idempotency-Key": "again"}
    id = client.post("/v1/executions", **asked).json()["execution_id"]
    ended(api, tenant, id)
    filled(client)
    check_refused(client.post("/v1/executions", **asked))


def test_what_other_services_ask_for_is_accepted_over_the_quota_and_counts(
    api: Api, client: httpx.Client, tenant: str
) -> None:
    """A record on job.requested can be told nothing: it runs, in its tenant's turns, and callers wait."""
    ids = [f"{next(_number):040x}" for _ in range(LIMIT + 2)]
    for id in ids:
        api.project([accepted(id, tenant)])
    assert load(api, tenant) == (LIMIT + 2, LIMIT + 2)
    check_refused(submit(client))
    for id in ids[:3]:
        ended(api, tenant, id, "completed")
    assert load(api, tenant) == (LIMIT - 1, LIMIT - 1)
    filled(client, 1)


def test_events_that_come_again_are_counted_once(api: Api, client: httpx.Client, tenant: str) -> None:
    id = filled(client, 1)[0]
    ended(api, tenant, id)
    with api.cursor() as cursor:
        cursor.execute("DELETE FROM api.state WHERE key = %s", (id,))
    ended(api, tenant, id)
    assert load(api, tenant) == (0, 0)
