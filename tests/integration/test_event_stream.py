"""The stream of an execution's events: every event once, in order, from anywhere, and nothing for nothing."""

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import cast

import httpx
import pytest

from services.api import keys
from services.api.door import Door
from services.api.routes.events import EVENTS_MAX
from services.api.streams import Streams
from services.contracts import events
from services.contracts.events import Event
from services.runtime.settings import Api as ApiSettings
from tests.serving import Api, accepted, facts, serving
from tests.stack import Stack
from tests.streaming import Message, messages, stream
from tests.waiting import until

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def api(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    streams, door = Streams(heartbeat_s=0.05), Door(ApiSettings(streams=3))
    with serving(
        stack.fresh_database(), tmp_path_factory.mktemp("api"), streams=streams, door=door
    ) as served:
        yield served


def story(id: str) -> list[Event]:
    return [
        accepted(id),
        events.ExecutionStarted(**facts(id, 2)),
        events.StepRunning(**facts(id, 3), step="noop", attempt=1, take_id="t", worker="w"),
        events.StepCompleted(**facts(id, 4), step="noop", attempt=1, output={"text": "a\nb"}),
        events.ExecutionCompleted(**facts(id, 5), files=0, rows=0, bytes=0),
    ]


def said(found: Iterator[Message]) -> Iterator[Message]:
    """Without comments."""
    return (message for message in found if message.comment is None)


def sequences(found: list[Message]) -> list[int]:
    """Those of the messages that are events; each has its own as its id."""
    bodies = [(message.id, json.loads(message.data)) for message in found if message.event is None]
    assert all(id == str(body["sequence"]) for id, body in bodies)
    return [body["sequence"] for _, body in bodies]


def test_a_stream_is_all_events_then_the_end(api: Api, client: httpx.Client, id: str) -> None:
    api.project(story(id)[:2])
    with stream(client, f"/v1/executions/{id}/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        found = said(messages(answer))
        first = list(islice(found, 2))
        api.project(story(id)[2:])
        rest = list(found)
    assert sequences([*first, *rest]) == [1, 2, 3, 4, 5]
    assert (rest[-1].event, json.loads(rest[-1].data)) == ("end", {"status": "completed"})
    as_json = client.get(f"/v1/executions/{id}/events").json()["events"]
    assert [json.loads(message.data) for message in [*first, *rest[:-1]]] == as_json


@pytest.mark.parametrize(
    ("query", "last", "expected"),
    [("", None, [1, 2, 3, 4, 5]), ("", 3, [4, 5]), ("?after=4", None, [5]), ("?after=1", 4, [5])],
)
def test_a_stream_begins_behind_what_is_known(
    api: Api, client: httpx.Client, id: str, query: str, last: int | None, expected: list[int]
) -> None:
    api.project(story(id))
    with stream(client, f"/v1/executions/{id}/events{query}", last) as answer:
        assert sequences(list(said(messages(answer)))) == expected


def test_who_knows_the_end_is_told_to_stay_away(api: Api, client: httpx.Client, id: str) -> None:
    api.project(story(id))
    with stream(client, f"/v1/executions/{id}/events", 5) as answer:
        assert (answer.status_code, answer.read()) == (204, b"")


def test_what_follows_the_end_is_streamed_too(api: Api, client: httpx.Client, id: str) -> None:
    rerun = events.ExecutionRerun(**facts(id, 6), rerun_id="f" * 40, requested_by="alice")
    api.project([*story(id), rerun])
    with stream(client, f"/v1/executions/{id}/events", 5) as answer:
        assert sequences(list(said(messages(answer)))) == [6]


def test_many_events_come_in_pages_without_a_seam(api: Api, client: httpx.Client, id: str) -> None:
    api.project(story(id))
    with api.cursor() as cursor:
        cursor.execute(
            "INSERT INTO api.execution_event SELECT execution_id, n, tenant, 'step.progressed', occurred_at,"
            " json_build_object('sequence', n) FROM api.execution_event, generate_series(6, %s) n"
            " WHERE execution_id = %s AND sequence = 1",
            (2 * EVENTS_MAX, id),
        )
    with stream(client, f"/v1/executions/{id}/events") as answer:
        assert sequences(list(said(messages(answer)))) == list(range(1, 2 * EVENTS_MAX + 1))


def test_waiting_asks_the_database_for_nothing_but_the_key(
    api: Api, client: httpx.Client, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "CACHED_S", 60.0)

    def last_asked() -> tuple[datetime, str]:
        latest = (
            "SELECT query_start, query FROM pg_stat_activity"
            " WHERE application_name = 'millstream-api' AND datname = current_database()"
            " ORDER BY query_start DESC NULLS LAST LIMIT 1"
        )
        return cast(tuple[datetime, str], api.rows(latest)[0])

    api.project(story(id)[:1])
    with stream(client, f"/v1/executions/{id}/events") as answer:
        found = messages(answer)
        assert [message.comment for message in islice(found, 6)][1:] == ["waiting"] * 5
        before = last_asked()
        assert {message.comment for message in islice(found, 20)} == {"waiting"}
        assert last_asked() == before
        api.project(story(id)[1:])
        assert sequences(list(said(found))) == [2, 3, 4, 5]
        assert last_asked() > before


def test_each_caller_has_a_bounded_number(api: Api, client: httpx.Client, id: str) -> None:
    path = f"/v1/executions/{id}/events"
    with stream(client, path) as one, stream(client, path) as two, stream(client, path) as three:
        opened = [messages(answer) for answer in (one, two, three)]  # kept: a reader that goes closes
        assert {next(found).comment for found in opened} == {"waiting"}
        with stream(client, path) as refused:
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        with api.client(api.key(principal="bob")) as other, stream(other, path) as answer:
            assert answer.status_code == 200

    def is_free() -> bool:
        with stream(client, path) as answer:
            return answer.status_code == 200

    until(is_free, 10, "the closed streams to be forgotten")


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 19, "٣", "6", "0-12", "end"])
def test_a_wrong_last_event_id_is_named(client: httpx.Client, id: str, last: str) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last.encode()}
    answer = client.get(f"/v1/executions/{id}/events", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "Last-Event-ID"


def test_another_tenants_stream_does_not_exist(api: Api, client: httpx.Client, id: str) -> None:
    with api.client(api.key(tenant="other")) as other:
        for unknown in (id, "0" * 40, "x"):
            with stream(other, f"/v1/executions/{unknown}/events") as answer:
                assert answer.status_code == 404
    with api.client("") as nobody, stream(nobody, f"/v1/executions/{id}/events") as answer:
        assert answer.status_code == 401


def test_a_drain_ends_streams_without_an_end(stack: Stack, tmp_path: Path) -> None:
    with serving(stack.fresh_database(), tmp_path) as api, api.client() as client:
        id = client.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
        api.project(story(id)[:1])
        with stream(client, f"/v1/executions/{id}/events") as answer:
            found = messages(answer)
            assert sequences([next(found)]) == [1]
            api.parts.live.close()
            assert [message.event for message in found if message.comment is None] == []


@pytest.mark.parametrize("quiet", [True, False])
def test_a_stream_ends_with_its_key(api: Api, id: str, quiet: bool) -> None:
    api.project(story(id)[:1])
    key = api.key()
    with api.client(key) as leaver, stream(leaver, f"/v1/executions/{id}/events") as answer:
        found = said(messages(answer))
        next(found)
        with api.cursor() as cursor:
            cursor.execute(
                "UPDATE api.api_key SET revoked_at = now() WHERE prefix = %s", (key.split("_")[1],)
            )
        if quiet:
            assert list(found) == []
            return
        until(lambda: leaver.get("/v1/me").status_code == 401, 10, "the key to be forgotten")
        api.project(story(id)[1:])
        assert list(found) == []
