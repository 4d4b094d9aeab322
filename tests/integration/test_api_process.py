"""`python -m services.api` as a process on its own broker and database: outages, drain, projection."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from services.cli import topics
from services.cli.dev.folder import free_port
from services.contracts import events
from services.runtime import kafka, schemas
from services.runtime.kafka import Publisher
from tests.api_process import ROOT, Process
from tests.serving import FLIGHTS, accepted, facts, record_of
from tests.stack import OwnStack
from tests.waiting import until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

CANARY = "canary-51d0c4"


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """The process uses the fixed topic names, and tests stop the broker and the database."""
    return own


@pytest.fixture(scope="module")
def api(stack: OwnStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Running at the start of every test, and left running by it."""
    process = Process(stack, stack.fresh_database(), tmp_path_factory.mktemp("api"))
    process.run("migrate")
    key = process.run("create-key", "--tenant", "acme", "--principal", "alice", "--role", "admin")
    process.client.headers["Authorization"] = f"Bearer {key}"
    process.start()
    try:
        yield process
    finally:
        process.end()


def published(stack: OwnStack, topic: str) -> list[Any]:
    """Every record of a topic, decoded; none while the broker cannot tell."""
    consumer = Consumer(kafka.consumer_config(stack.kafka, "tests", "tests"))
    found: list[Any] = []
    try:
        for partition in range(12):
            spot = TopicPartition(topic, partition, 0)
            low, high = consumer.get_watermark_offsets(spot, timeout=10)
            spot.offset = low
            consumer.assign([spot])
            while low < high:
                (message,) = consumer.consume(1, 10)
                assert message.error() is None
                low = (message.offset() or 0) + 1
                found.append(schemas.codec().decode(topic, message.value()))
    except KafkaException:
        return []
    finally:
        consumer.close()
    return found


def actions(api: Process) -> list[str]:
    """What the process logged; librdkafka writes lines of its own."""
    lines = [line for line in api.log.read_text().splitlines() if line.startswith("{")]
    return [json.loads(line)["action"] for line in lines]


def requested(stack: OwnStack) -> list[str]:
    return [record.execution_id for record in published(stack, "job.requested")]


def ids_of(answers: list[httpx.Response]) -> set[str]:
    return {answer.json()["execution_id"] for answer in answers if answer.status_code == 202}


def test_publishes_what_it_accepts_and_projects_what_happens(stack: OwnStack, api: Process) -> None:
    id = api.submit(callback={"url": "https://example.com", "headers": {"X": CANARY}}).json()["execution_id"]
    until(lambda: requested(stack).count(id) == 1, 30, "the request on its topic")
    api.client.put("/v1/datasets/flights", content=FLIGHTS).raise_for_status()
    until(lambda: len(published(stack, "definition.state")) == 1, 30, "the definition on its topic")

    publisher = Publisher(stack.kafka, "tests")
    story: list[events.Event] = [
        accepted(id),
        events.ExecutionStarted(**facts(id, 2)),
        events.StepRunning(**facts(id, 3), step="noop", attempt=1, take_id="t", worker="w"),
        events.StepCompleted(**facts(id, 4), step="noop", attempt=1, output={}),
        events.ExecutionCompleted(**facts(id, 5), files=0, rows=0, bytes=0),
    ]
    for event in [story[1], story[0], story[0], *story[2:]]:
        record = record_of(event)
        publisher.publish(record.topic, record.key, record.value, record.headers).result(20)
    publisher.close(1)

    def completed() -> dict[str, Any] | None:
        view: dict[str, Any] = api.client.get(f"/v1/executions/{id}").json()
        return view if view["status"] == "completed" else None

    view = until(completed, 30, "the execution to be completed")
    assert view["steps"][0]["status"] == "Completed"
    seen = api.client.get(f"/v1/executions/{id}/events").json()
    assert [event["sequence"] for event in seen["events"]] == [1, 2, 3, 4, 5] and seen["last"] == 5
    assert (
        api.client.get(f"/v1/executions/{id}/events?after=4")
        .json()["events"][0]["type"]
        .endswith("completed")
    )
    assert api.status("/readyz") == 200 and api.degraded() == []
    assert CANARY not in api.log.read_text()


def test_a_drain_answers_and_publishes_everything(stack: OwnStack, api: Process) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: api.submit(), range(200)))
    assert api.signal(signal.SIGTERM) == 0
    assert {answer.status_code for answer in answers} == {202}
    assert ids_of(answers) <= set(requested(stack))
    assert actions(api)[-1] == "stopped"
    api.start()


def test_takes_requests_while_the_broker_is_away(stack: OwnStack, api: Process) -> None:
    stack.broker.stop()
    try:
        answers = [api.submit() for _ in range(20)]
        assert {answer.status_code for answer in answers} == {202}
        until(api.degraded, 30, "the projector to be degraded")
        assert api.status("/readyz") == 200
    finally:
        stack.broker.start()
    until(lambda: ids_of(answers) <= set(requested(stack)), 60, "the requests to be published")
    until(lambda: not api.degraded(), 60, "the projector to be back")


def test_says_503_while_the_database_is_away_and_loses_nothing(stack: OwnStack, api: Process) -> None:
    before = [api.submit() for _ in range(5)]
    stack.postgres.stop()
    try:
        for refused in (api.submit(), api.client.get("/v1/executions")):
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["type"] == "urn:millstream:problem:unavailable"
            assert refused.elapsed.total_seconds() < 9
        assert api.status("/readyz") == 503
        assert api.status("/livez") == 200
    finally:
        stack.postgres.start()
    until(lambda: api.status("/readyz") == 200, 30, "api to be ready again")
    after = api.submit()
    wanted = ids_of([*before, after])
    until(lambda: wanted <= set(requested(stack)), 60, "the requests to be published")
    listed = {item["execution_id"] for item in api.client.get("/v1/executions?limit=200").json()["items"]}
    assert wanted <= listed


def test_publishes_again_when_the_log_of_a_topic_was_lost(stack: OwnStack, api: Process) -> None:
    id = api.submit().json()["execution_id"]
    until(lambda: requested(stack).count(id) == 1, 30, "the request on its topic")
    assert api.signal(signal.SIGTERM) == 0
    with kafka.Admin(stack.kafka, "tests") as admin:
        admin.delete_topics(["job.requested"], operation_timeout=30)["job.requested"].result(30)
        until(lambda: not kafka.topic_facts(admin, ["job.requested"]), 30, "the topic to be gone")
        topics.apply_to(admin)
    api.start()
    until(lambda: id in requested(stack), 30, "the request on the new topic")


@pytest.mark.parametrize(
    ("point", "records"),
    [("api.submit.commit", 1), ("api.submit.committed", 1), ("outbox.claimed", 1), ("outbox.produced", 2)],
)
def test_a_kill_loses_nothing_and_doubles_nothing(
    stack: OwnStack, api: Process, tmp_path: Path, point: str, records: int
) -> None:
    """A caller without an answer asks again with the same key. What is published twice is the same record."""
    assert api.signal(signal.SIGTERM) == 0
    api.start(MILLSTREAM_CRASH__POINT=point, MILLSTREAM_CRASH__MARK=str(tmp_path / "mark"))
    headers = {"Idempotency-Key": point}
    with contextlib.suppress(httpx.TransportError):
        answer = api.client.post("/v1/executions", json={"jobType": "noop"}, headers=headers)
        assert (answer.status_code, point.startswith("outbox.")) == (202, True)
    assert api.exit_code() == -signal.SIGKILL
    api.start()
    answer = api.client.post("/v1/executions", json={"jobType": "noop"}, headers=headers)
    assert answer.status_code == 202
    id = answer.json()["execution_id"]
    until(lambda: requested(stack).count(id) == records, 30, f"{records} records")
    listed = [item["execution_id"] for item in api.client.get("/v1/executions?limit=200").json()["items"]]
    assert listed.count(id) == 1


def test_settings_are_checked_all_at_once(stack: OwnStack, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "MILLSTREAM_API__PORT": "x"}
    done = subprocess.run(
        [sys.executable, "-m", "services.api"],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    for name in ("API__PORT", "DATABASE_URL", "KAFKA__BOOTSTRAP_SERVERS", "SEALING__KEYS", "LINKS__KEYS"):
        assert f"MILLSTREAM_{name}: expected" in done.stderr


def test_a_taken_port_is_named(stack: OwnStack, api: Process) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.api"],
        check=False, cwd=ROOT, env=api.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "MILLSTREAM_API__PORT" in done.stdout


def test_a_taken_health_port_is_named(stack: OwnStack, api: Process) -> None:
    taken: set[int] = set()
    done = subprocess.run(
        [sys.executable, "-m", "services.api"],
        check=False,
        cwd=ROOT,
        env=api.environment | {"MILLSTREAM_API__PORT": str(free_port(0, taken))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "MILLSTREAM_HEALTH__PORT: expected a free port" in done.stderr
