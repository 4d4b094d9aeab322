"""Two api processes over one database: streams go on at the other one, without a gap and without a double."""

import json
import random
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import httpx
import pytest

from services.contracts import events
from services.contracts.events import Event
from services.runtime.kafka import Publisher
from tests.api_process import Process
from tests.serving import accepted, facts, record_of
from tests.stack import OwnStack
from tests.streaming import Message, messages, stream

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

PROGRESS = 40
FOLLOWERS = 12
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def stack(own: OwnStack) -> OwnStack:
    """The processes use the fixed topic names, and one test stops the database."""
    return own


@pytest.fixture
def pair(stack: OwnStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    """Two processes; each projects its half of the partitions, and serves every execution."""
    url = stack.fresh_database()
    made = [Process(stack, url, tmp_path_factory.mktemp("api")) for _ in range(2)]
    made[0].run("migrate")
    key = made[0].run("create-key", "--tenant", "acme", "--principal", "alice", "--role", "admin")
    try:
        for process in made:
            process.client.headers["Authorization"] = f"Bearer {key}"
            process.start()
        yield made
    finally:
        for process in made:
            process.end()


def story(id: str) -> list[Event]:
    return [
        accepted(id),
        events.ExecutionStarted(**facts(id, 2)),
        *(
            events.StepProgressed(
                **facts(id, 3 + n), step="noop", attempt=1, files=0, rows=n, bytes=0, detail=None
            )
            for n in range(PROGRESS)
        ),
        events.ExecutionCompleted(**facts(id, 3 + PROGRESS), files=0, rows=0, bytes=0),
    ]


def publish(stack: OwnStack, story: Sequence[Event]) -> None:
    """What the manager does, one acknowledged event after the other."""
    publisher = Publisher(stack.kafka, "tests")
    for event in story:
        record = record_of(event)
        publisher.publish(record.topic, record.key, record.value, record.headers).result(20)
    publisher.close(1)


def follow(clients: Sequence[httpx.Client], id: str, seed: int) -> list[int]:
    """The sequences that arrive until the end, at one process after the other, a few at each."""
    choice = random.Random(seed)
    found: list[int] = []
    for client in (client for _ in range(100) for client in clients):
        with stream(client, f"/v1/executions/{id}/events", found[-1] if found else None) as answer:
            if answer.status_code == 204:
                return found
            few = (message for message in messages(answer) if message.comment is None)
            for message in islice(few, choice.randint(1, 9)):
                if message.event == "end":
                    return found
                found.append(int(message.id or 0))
                assert json.loads(message.data)["sequence"] == found[-1]
    raise AssertionError(f"seed {seed}: no end after {found}")


def test_followers_that_go_from_one_to_the_other_see_every_event_once(
    stack: OwnStack, pair: list[Process]
) -> None:
    ids = [process.submit().json()["execution_id"] for process in pair for _ in range(FOLLOWERS // 2)]
    stories = [story(id) for id in ids]
    mixed = [event for of_all in zip(*stories, strict=True) for event in of_all]
    clients = [process.client for process in pair]
    with ThreadPoolExecutor(FOLLOWERS) as threads:
        followers = [
            threads.submit(follow, clients if n % 2 else clients[::-1], id, n) for n, id in enumerate(ids)
        ]
        publish(stack, mixed)
        for follower in followers:
            assert follower.result(WITHIN_S) == list(range(1, PROGRESS + 4))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stream_goes_on_at_the_other_process(
    stack: OwnStack, pair: list[Process], how: signal.Signals
) -> None:
    """A drain ends a stream whole; a kill breaks it off. Neither says `end`, so the client comes back."""
    one, other = pair
    id = one.submit().json()["execution_id"]
    whole = story(id)
    publish(stack, whole[:5])
    with ThreadPoolExecutor(1) as thread:
        seen: list[Message] = []
        try:
            with stream(one.client, f"/v1/executions/{id}/events") as answer:
                found = (message for message in messages(answer) if message.comment is None)
                seen += islice(found, 5)
                end = thread.submit(one.signal, how)
                seen += found
        except httpx.RemoteProtocolError:
            assert how is signal.SIGKILL
        assert end.result(WITHIN_S) == (0 if how is signal.SIGTERM else -how)
    assert [message.id for message in seen] == ["1", "2", "3", "4", "5"]
    publish(stack, whole[5:])
    with stream(other.client, f"/v1/executions/{id}/events", seen[-1].id) as answer:
        rest = [message for message in messages(answer) if message.comment is None]
    assert [message.id for message in rest] == [*map(str, range(6, PROGRESS + 4)), None]
    assert rest[-1].event == "end"


def test_a_stream_outlives_an_outage_of_the_database(stack: OwnStack, pair: list[Process]) -> None:
    one, other = pair
    id = one.submit().json()["execution_id"]
    whole = story(id)
    publish(stack, whole[:5])
    with stream(other.client, f"/v1/executions/{id}/events") as answer:
        found = (message for message in messages(answer) if message.comment is None)
        seen = [*islice(found, 5)]
        stack.postgres.stop()
        try:
            publish(stack, whole[5:])
        finally:
            stack.postgres.start()
        seen += found
    assert [message.id for message in seen] == [*map(str, range(1, PROGRESS + 4)), None]
