"""The notifier as a process: real broker, real database, and the signals that end it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from standardwebhooks import Webhook

from services.cli.dev.folder import free_port
from services.contracts import envelope
from services.contracts.events import Event
from services.notifier.store import LEASE_S
from services.runtime import entropy, kafka
from services.runtime.schemas import codec
from tests.integration.owed import SECRET, TOKEN, Database, callback, deliveries, story
from tests.receiver import Call, Receiver, status
from tests.stack import OwnStack
from tests.waiting import until_async

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

KEYS = "k1:MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE="
TOPIC = "execution.events"
WAIT_S = 30


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """The notifier uses the fixed topic names, and one test stops the database."""
    return own


class Notifier:
    """A running `python -m services.notifier`."""

    def __init__(self, own: OwnStack, database: Database, log: Path, crash_point: str | None = None) -> None:
        self.port = free_port(0, set())
        self.log = log
        environment = {
            "PATH": os.environ["PATH"],
            "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": own.bootstrap,
            "MILLSTREAM_DATABASE_URL": database.url,
            "MILLSTREAM_BLOBS__URL": log.with_suffix(".blobs").resolve().as_uri(),
            "MILLSTREAM_SEALING__KEYS": KEYS,
            "MILLSTREAM_OUTBOUND__ALLOW": "127.0.0.0/8",
            "MILLSTREAM_HEALTH__PORT": str(self.port),
        }
        if crash_point:
            mark = str(log.with_suffix(".mark"))
            environment |= {"MILLSTREAM_CRASH__POINT": crash_point, "MILLSTREAM_CRASH__MARK": mark}
        with log.open("ab") as output:
            command = [sys.executable, "-m", "services.notifier"]
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a health path; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@contextmanager
def running(
    own: OwnStack, database: Database, log: Path, crash_point: str | None = None
) -> Iterator[Notifier]:
    notifier = Notifier(own, database, log, crash_point)
    try:
        yield notifier
    finally:
        notifier.end()


@asynccontextmanager
async def publishing(own: OwnStack) -> AsyncIterator[Callable[[Event], None]]:
    publisher = kafka.Publisher(own.kafka, "tests")

    def publish(event: Event) -> None:
        outgoing = envelope.event(event, codec().encode(event), b"")
        publisher.publish(TOPIC, outgoing.key, outgoing.value, outgoing.headers).result(30)

    try:
        yield publish
    finally:
        assert publisher.close(10) == 0


async def until(fact: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
    async def ask() -> bool:
        return bool(await asyncio.to_thread(fact))

    await until_async(ask, timeout_s, what)


def values(own: OwnStack, topic: str) -> list[bytes]:
    """Every record of a topic, as bytes."""
    config: dict[str, Any] = {
        "bootstrap.servers": own.bootstrap,
        "group.id": "tests",
        "enable.auto.commit": False,
    }
    consumer = Consumer({**config, "enable.partition.eof": True})
    found: list[bytes] = []
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        ended = 0
        while ended < len(partitions):
            message = consumer.poll(10)
            assert message is not None
            if message.error():
                ended += 1
            else:
                found.append((message.value() or b"") + repr(message.headers()).encode())
    finally:
        consumer.close()
    return found


async def test_from_the_log_to_the_receiver(
    own: OwnStack, database: Database, receiver: Receiver, tmp_path: Path
) -> None:
    """Matched once, delivered once, drained on SIGTERM; the secrets are nowhere but in the request."""
    with running(own, database, tmp_path / "log") as notifier:
        async with publishing(own) as publish:
            await until(lambda: notifier.get("/readyz")[0] == 200, "the notifier to be ready")
            events: list[Event] = []
            for _ in range(20):
                events += story(entropy.fresh_id(), callback(receiver.url()))
                events += story(entropy.fresh_id())
            for event in (*events, *events):  # a producer's retry, a replay
                await asyncio.to_thread(publish, event)
            last = story(entropy.fresh_id(), callback(receiver.url("/last")))
            for event in last:
                await asyncio.to_thread(publish, event)
            await until(lambda: receiver.at("/last"), "the last delivery")
            await until(lambda: database.count("delivered") == 21, "the records")
        assert len(receiver.at("/hook")) == 20
        for call in receiver.calls:
            Webhook(SECRET).verify(call.body, dict(call.headers))
        metrics = notifier.get("/metrics")[1]
        assert 'deliveries_total{result="delivered"} 21.0' in metrics
        assert "delivery_latency_seconds_count 21.0" in metrics
        assert database.query("SELECT key FROM notifier.state") == []
        notifier.process.send_signal(signal.SIGTERM)
        await until(lambda: notifier.process.poll() is not None, "the end")
        assert notifier.process.returncode == 0
    log = (tmp_path / "log").read_text()
    assert [json.loads(line)["action"] for line in log.splitlines()][-1] == "stopped"
    for secret in (TOKEN.split()[1], SECRET.removeprefix("whsec_")):
        assert secret not in log
        assert all(secret.encode() not in value for value in values(own, TOPIC))


async def test_kill_9_around_the_send_changes_no_id(
    own: OwnStack, receiver: Receiver, tmp_path: Path
) -> None:
    """Killed before the send, and between the answer and its record: the same id goes out again, in time."""

    async def story_of(point: str) -> None:
        database = Database(own.fresh_database())
        ended.callback(database.close)
        [owed] = deliveries(callback(receiver.url(f"/{point}")))
        database.insert(owed)
        with running(own, database, tmp_path / point, point) as victim:
            await until(lambda: victim.process.poll() is not None, f"the kill at {point}")
            assert victim.process.returncode == -signal.SIGKILL
        before = len(receiver.at(f"/{point}"))
        assert before == (1 if point == "notifier.sent" else 0)
        assert database.attempts(owed) == []
        with running(own, database, tmp_path / point, point):
            await until(
                lambda: database.count("delivered"), f"the delivery after {point}", timeout_s=LEASE_S + 10
            )
        calls = receiver.at(f"/{point}")
        assert len(calls) == before + 1
        assert {call.headers["webhook-id"] for call in calls} == {owed.delivery_id}
        assert {call.body for call in calls} == {owed.body}
        assert len(database.attempts(owed)) == 1

    with ExitStack() as ended:
        await asyncio.gather(story_of("notifier.send"), story_of("notifier.sent"))


async def test_the_database_goes_away_and_comes_back(
    own: OwnStack, database: Database, receiver: Receiver, tmp_path: Path
) -> None:
    """Not ready but alive, no restart; what was answered meanwhile is recorded, what was due goes out."""
    release = asyncio.Event()

    async def slow(call: Call, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await status(200)(call, writer)

    receiver.script["/slow"] = [slow]
    [owed] = deliveries(callback(receiver.url("/slow")))
    with running(own, database, tmp_path / "log") as notifier:
        await until(lambda: notifier.get("/readyz")[0] == 200, "the notifier to be ready")
        database.insert(owed)
        await until(lambda: receiver.at("/slow"), "the call")
        database.close()
        await asyncio.to_thread(own.postgres.stop)
        try:
            release.set()
            await until(lambda: notifier.get("/readyz")[0] == 503, "not ready")
            assert notifier.get("/livez")[0] == 200
        finally:
            await asyncio.to_thread(own.postgres.start)
        again = Database(database.url)
        try:
            await until(lambda: again.count("delivered") == 1, "the record of what was answered")
            again.insert(*deliveries(callback(receiver.url("/later"))))
            await until(lambda: again.count("delivered") == 2, "the delivery after the outage")
            await until(lambda: notifier.get("/readyz")[0] == 200, "ready again")
            assert again.row(owed)["attempts"] == 1
        finally:
            again.close()
        assert notifier.process.poll() is None
    assert len(receiver.at("/slow")) == 1


def test_migrate_may_run_again(own: OwnStack) -> None:
    url = own.fresh_database()
    environment = {"PATH": os.environ["PATH"], "MILLSTREAM_DATABASE_URL": url}
    for _ in range(2):
        command = [sys.executable, "-m", "services.notifier", "migrate"]
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == 0, ended.stderr
    database = Database(url)
    assert database.query("SELECT count(*) AS rows FROM notifier.schema_version") == [{"rows": 1}]
    database.close()


def test_settings_are_refused_all_at_once() -> None:
    environment = {"PATH": os.environ["PATH"], "MILLSTREAM_OUTBOUND__ALLOW": "localhost"}
    command = [sys.executable, "-m", "services.notifier"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == 2
    for key in (
        "KAFKA__BOOTSTRAP_SERVERS",
        "DATABASE_URL",
        "BLOBS__URL",
        "SEALING__KEYS",
        "HEALTH__PORT",
        "OUTBOUND__ALLOW",
    ):
        assert f"MILLSTREAM_{key}: expected" in ended.stderr
