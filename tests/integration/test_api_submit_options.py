"""POST /v1/executions: runAt, onDuplicate, and Prefer: wait."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg2
import pytest

from services.api import duplicates
from services.contracts import ids
from services.contracts.events import ExecutionCompleted, ExecutionFailed, StepFailed
from services.runtime import crash
from services.runtime.entropy import LocalClock
from tests.serving import Api, accepted, facts
from tests.waiting import until

pytestmark = pytest.mark.postgres


def post(
    client: httpx.Client, key: str | None = None, prefer: str | None = None, **more: Any
) -> httpx.Response:
    named = {"Idempotency-Key": key, "Prefer": prefer}
    headers = {name: value for name, value in named.items() if value is not None}
    return client.post("/v1/executions", json={"jobType": "noop", **more}, headers=headers)


def pointers(answer: httpx.Response) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


# ---------------------------------------------------------------- runAt


def test_the_record_carries_the_instant_in_utc(api: Api, client: httpx.Client) -> None:
    answer = post(client, runAt="2026-01-31T05:00:00+02:00")
    assert answer.status_code == 202
    id = answer.json()["execution_id"]
    record = next(r for r in api.outgoing("job.requested") if r.execution_id == id)
    assert record.run_at == datetime(2026, 1, 31, 3, tzinfo=UTC)


@pytest.mark.parametrize("value", ["tomorrow", "2026-01-31T05:00:00", 1769832000, "", {}])
def test_what_is_no_instant_is_refused(client: httpx.Client, value: Any) -> None:
    answer = post(client, runAt=value)
    assert (answer.status_code, pointers(answer)) == (400, ["runAt"])


def test_an_instant_beyond_a_year_is_refused_and_nothing_stored(api: Api, client: httpx.Client) -> None:
    before = api.count("job_request")
    later = LocalClock().now().year + 3
    answer = post(client, runAt=f"{later}-01-01T00:00:00Z")
    assert (answer.status_code, pointers(answer)) == (400, ["runAt"])
    assert f"found {later}-01-01T00:00:00+00:00" in answer.json()["detail"]
    assert api.count("job_request") == before


# ---------------------------------------------------------------- onDuplicate


def test_the_existing_one_is_returned_by_default_and_by_name(client: httpx.Client) -> None:
    first, again = (post(client, "by-default") for _ in range(2))
    assert (first.status_code, again.content) == (202, first.content)
    named = [post(client, "by-name", onDuplicate="return_existing") for _ in range(2)]
    assert (named[0].status_code, named[1].content) == (202, named[0].content)


def test_a_duplicate_is_rejected_when_asked(client: httpx.Client) -> None:
    first, again = (post(client, "reject", onDuplicate="reject") for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 409)
    assert again.json()["type"] == "urn:millstream:problem:duplicate-request"
    assert first.json()["execution_id"] in again.json()["detail"]


def test_the_first_one_is_accepted_though_its_connection_died_behind_the_commit(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(client)  # from here on the connection is a kept one
    died: list[str] = []

    def die_once(point: str) -> None:
        if point == "api.submit.committed" and not died:
            died.append(point)
            raise psycopg2.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(crash, "reach", die_once)
    first, again = (post(client, "died", onDuplicate="reject") for _ in range(2))
    assert died and (first.status_code, again.status_code) == (202, 409)
    id = first.json()["execution_id"]
    assert len([r for r in api.outgoing("job.requested") if r.execution_id == id]) == 1


def test_each_use_of_a_key_says_how_it_is_answered(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three answers of the README: onDuplicate is no part of what must be the same."""
    monkeypatch.setattr(duplicates, "ANSWER_WITHIN_S", 0.1)  # no manager answers here
    first = post(client, "plain")
    assert first.status_code == 202
    original = first.json()["execution_id"]
    existing = post(client, "plain", onDuplicate="return_existing")
    assert (existing.status_code, existing.content) == (202, first.content)
    rejected = post(client, "plain", onDuplicate="reject")
    assert (rejected.status_code, rejected.json()["type"]) == (
        409,
        "urn:millstream:problem:duplicate-request",
    )
    assert original in rejected.json()["detail"]
    fail(api, original)
    again = post(client, "plain", onDuplicate="rerun_if_failed")
    assert (again.status_code, again.json()["execution_id"]) == (202, ids.rerun_id(original, 1))
    assert post(client, "plain", onDuplicate="return_existing").content == first.content


def test_empty_lists_ask_for_nothing(client: httpx.Client) -> None:
    assert post(client, callbacks=[], actions=[], runAt="2026-01-01t05:00:00.123456789z").status_code == 202


def test_of_many_at_once_one_is_accepted(api: Api, client: httpx.Client) -> None:
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: post(client, "many", onDuplicate="reject"), range(40)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 39
    assert {answer.json()["type"] for answer in answers if answer.status_code == 409} == {
        "urn:millstream:problem:duplicate-request"
    }


def test_without_a_key_there_is_no_duplicate(client: httpx.Client) -> None:
    answer = post(client, onDuplicate="reject")
    assert (answer.status_code, pointers(answer)) == (400, ["onDuplicate"])


def fail(api: Api, id: str) -> None:
    step: dict[str, Any] = {"step": "noop", "attempt": 1, "reason": "r", "message": "m"}
    failed = ExecutionFailed(**facts(id, 3), step="noop", reason="r", message="m", dead_letter=None)
    api.project([accepted(id), StepFailed(**facts(id, 2), **step), failed])


def reruns(api: Api, original: str) -> list[str]:
    """What the commands name."""
    given = [c for c in api.outgoing("execution.commands") if c.execution_id == original]
    assert {command.kind for command in given} <= {"rerun"}
    return [command.rerun_id for command in given]


def test_what_failed_is_run_again_and_counted(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "ANSWER_WITHIN_S", 0.1)  # no manager answers here

    def ask() -> str:
        answer = post(client, "rerun", onDuplicate="rerun_if_failed")
        assert answer.status_code == 202
        return str(answer.json()["execution_id"])

    original = ask()
    assert (ask(), reruns(api, original)) == (original, [])  # it has not failed
    fail(api, original)
    with ThreadPoolExecutor(8) as threads:
        (first,) = set(threads.map(lambda _: ask(), range(8)))
    assert first == ids.rerun_id(original, 1)
    assert reruns(api, original) == [first]
    fail(api, first)
    second = ask()
    assert second == ask() == ids.rerun_id(original, 2)
    assert reruns(api, original) == [first, second]
    end(api, second)
    assert ask() == second


@pytest.mark.parametrize("value", ["overwrite", "", 1, []])
def test_an_unknown_word_is_refused(client: httpx.Client, value: Any) -> None:
    answer = post(client, "unknown", onDuplicate=value)
    assert (answer.status_code, pointers(answer)) == (400, ["onDuplicate"])


# ---------------------------------------------------------------- Prefer: wait


def end(api: Api, id: str) -> None:
    """What the projector does once the execution has ended."""
    api.project([accepted(id), ExecutionCompleted(**facts(id, 2), files=0, rows=0, bytes=0)])


def test_an_execution_that_ends_in_time_is_the_answer(api: Api, client: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(post, client, "ends", "respond-async, wait=20")
        until(lambda: post(client, "ends").status_code == 202, 10, "the request to be stored")
        id = post(client, "ends").json()["execution_id"]
        end(api, id)
        answer = waiting.result(20)
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")
    assert answer.json()["status"] == "completed"
    assert {**answer.json(), "links": 0} == {**client.get(f"/v1/executions/{id}").json(), "links": 0}
    again = post(client, "ends", "wait=0")
    assert (again.status_code, again.json()["execution_id"]) == (200, id)


def test_one_that_goes_on_is_accepted_after_the_time(client: httpx.Client) -> None:
    started = time.monotonic()
    answer = post(client, prefer="wait=1")
    assert time.monotonic() - started >= 1
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
    assert answer.json()["status"] == "pending"


@pytest.mark.parametrize("prefer", ["wait", "wait=soon", "wait=-1", "await=5", "return=minimal"])
def test_a_preference_that_says_no_seconds_is_ignored(client: httpx.Client, prefer: str) -> None:
    answer = post(client, prefer=prefer)
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers
