"""A running system seen live: an export that goes on is followed, its log tailed, cancelled and run again."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import psycopg2
import pytest

from tests.local import Local
from tests.streaming import Message, messages, stream
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

SLOW = """\
source: flights
table: public.slow
columns:
  - {name: n, type: integer}
  - {name: waited, type: string}
"""
QUERIES = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%slow%'"
STOPPED_WITHIN_S = 5.0


@pytest.fixture
def client(local: Local) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=local.state["api_url"], timeout=30, trust_env=False) as made:
        made.headers["Authorization"] = f"Bearer {local.api_key}"
        yield made


@pytest.fixture
def slow(local: Local, client: httpx.Client) -> str:
    """A dataset whose every row takes a while: an export of it runs for an hour."""
    source = psycopg2.connect(local.state["source_url"])
    with closing(source), source, source.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE VIEW public.slow AS SELECT n, pg_sleep(0.05)::text AS waited"
            " FROM generate_series(1, 72000) n"
        )
    client.put("/v1/datasets/slow", content=SLOW).raise_for_status()
    return "slow"


def active_queries(local: Local) -> int:
    reader = local.folder.secrets / f"source-url-{local.state['source_name']}"  # sees queries of its own role
    with closing(psycopg2.connect(reader.read_text().strip())) as connection, connection.cursor() as cursor:
        cursor.execute(QUERIES)
        return int(cursor.fetchone()[0])  # type: ignore[index]


def said(answer: httpx.Response) -> list[Message]:
    return [message for message in messages(answer) if message.comment is None]


def whole(client: httpx.Client, path: str) -> list[Message]:
    """A stream from its beginning to its end."""
    with stream(client, path) as answer:
        assert answer.status_code == 200
        return said(answer)


def test_a_running_copy_is_followed_and_cancelled(local: Local, client: httpx.Client, slow: str) -> None:
    id = client.post("/v1/executions", json={"jobType": "export", "dataset": slow}).json()["execution_id"]
    with ThreadPoolExecutor(2) as threads:
        followed = threads.submit(whole, client, f"/v1/executions/{id}/events")
        tailed = threads.submit(whole, client, f"/v1/executions/{id}/steps/export/log")
        try:
            until(lambda: active_queries(local) == 1, 30, "the COPY to run")
            log_path = f"/v1/executions/{id}/steps/export/log"
            until(lambda: "step_began" in client.get(log_path).text, 30, "the first part of the log")
        finally:  # or the followers would never end
            answer = client.post(f"/v1/executions/{id}/cancel", json={"reason": "enough"})
        assert (answer.status_code, answer.json()["answer"]) == (200, "execution.cancelled")
        until(lambda: active_queries(local) == 0, STOPPED_WITHIN_S, "the COPY to stop")
        events, log = followed.result(60), tailed.result(60)
    types = [json.loads(message.data)["type"] for message in events if message.event is None]
    assert types[:3] == ["execution.accepted", "execution.started", "step.running"]
    assert types[-2:] == ["step.cancelled", "execution.cancelled"]
    assert [message.id for message in events[:-1]] == [str(n) for n in range(1, len(types) + 1)]
    assert json.loads(events[-1].data) == {"status": "cancelled"}
    assert "step_began" in "".join(message.data for message in log)
    view = client.get(f"/v1/executions/{id}").json()
    assert (view["status"], view["steps"][0]["status"], view["files"]) == ("cancelled", "Cancelled", [])
    again = client.post(f"/v1/executions/{id}/cancel")
    assert again.status_code == 409


def test_what_has_ended_runs_again(client: httpx.Client) -> None:
    def ended(id: str) -> dict[str, Any] | None:
        view: dict[str, Any] = client.get(f"/v1/executions/{id}").json()
        return view if view["status"] == "completed" else None

    id = client.post("/v1/executions", json={"jobType": "noop", "tag": "t"}).json()["execution_id"]
    until(lambda: ended(id), 30, "the first run")
    answer = client.post(f"/v1/executions/{id}/rerun")
    assert (answer.status_code, answer.json()["answer"]) == (200, "execution.rerun")
    rerun_id = answer.json()["rerun_id"]
    view = until(lambda: ended(rerun_id), 30, "the second run")
    assert (view["rerun_of"], view["tag"]) == (id, "t")
    assert client.get(f"/v1/executions/{id}").json()["reruns"] == [rerun_id]
    listed = client.get("/v1/executions", params={"tag": "t", "status": "completed"}).json()["items"]
    assert [item["execution_id"] for item in listed] == [rerun_id, id]
