"""A server that is away for a minute, a worker that sleeps through its lease, the same request many times."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.cli.dev.child import degraded
from services.cli.dev.folder import free_port
from services.contracts.commands import StepOutcome
from services.contracts.events import FilePublished, StepCompleted, StepRunning, type_of
from services.runtime import entropy, schemas
from tests import waiting
from tests.faults.harness import history, parcels, report
from tests.faults.harness.topic import Reader, Stories, Story
from tests.faults.harness.world import Found, World, world
from tests.stack import OwnStack, own_stack

pytestmark = [pytest.mark.faults]

SEED = int(os.environ.get("FAULTS_SEED") or int.from_bytes(entropy.token(3)))
ROWS = 60_000
OUTAGE_S = 60.0
CALLERS = 50
GATED = history.exhaust(parcels.GATED_ID, ["NORTH", "BERN"])
LANES = 2


@dataclass(frozen=True, slots=True)
class Outages:
    """A world whose servers are ours to stop."""

    world: World
    servers: OwnStack
    folder: Path

    def returned(self) -> None:
        """A server is back: the recovery bound counts from here."""
        self.world.watch.returns.append(self.world.watch.now())

    def settled(self) -> Found:
        """Everything has ended and every invariant holds."""
        self.world.settle()
        found = self.world.check()
        assert not found.faults, "\n".join(found.faults[:40])
        return found


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Outages]:
    """The four processes under dev, on a broker and a database that dev does not restart."""
    report.say(pytestconfig, f"outages: seed {SEED} (FAULTS_SEED={SEED} repeats the choices)")
    folder = tmp_path_factory.mktemp("outages")
    with own_stack(folder / "servers") as servers:
        environ = {
            "MILLSTREAM_DATABASE_URL": servers.fresh_database(),
            "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": servers.bootstrap,
        }
        with world(folder / "data", SEED, environ) as made:
            made.system.start()
            made.prepare(ROWS)
            yield Outages(made, servers, folder / "servers")


@contextmanager
def away(seconds: float) -> Iterator[None]:
    """The block lasts at least this long."""
    began = time.monotonic()
    yield
    World.wait(max(0.0, began + seconds - time.monotonic()))


def test_kafka_is_away_for_a_minute(outages: Outages) -> None:
    run = outages.world
    run.submit_many(10, 0.1)
    before, began = run.history.answers.copy(), run.watch.now()
    outages.servers.broker.kill()
    with away(OUTAGE_S):
        run.submit_many(40, OUTAGE_S / 45)
        ports = run.system.state["ports"]
        assert degraded(ports["api-health"]) and degraded(ports["notifier"])
    told = run.history.answers - before
    assert told == {"202": 40}, told
    outages.servers.broker.start()
    outages.returned()
    outages.settled()
    assert not run.watch.died_since(began)


def test_the_database_is_away_for_a_minute(outages: Outages) -> None:
    run = outages.world
    run.submit_many(10, 0.1)
    before, began = run.history.answers.copy(), run.watch.now()
    outages.servers.postgres.stop()
    with away(OUTAGE_S):
        run.submit_many(40, OUTAGE_S / 45, patient=0.0)
        url, key = run.system.address()
        listing = httpx.get(
            f"{url}/v1/executions", headers={"Authorization": f"Bearer {key}"}, timeout=15, trust_env=False
        )
        assert listing.status_code == 503 and "retry-after" in listing.headers
    told = run.history.answers - before
    assert told == {"503": 40}, told
    assert not run.history.retry_after_missing
    outages.servers.postgres.start()
    outages.returned()
    run.system.await_ready()
    outages.settled()
    assert not run.watch.died_since(began), "a process ended while the database was away"


def test_the_database_restarts_under_load(outages: Outages) -> None:
    run = outages.world
    began = run.watch.now()
    with run.submitting(40, 0.2):
        for _ in range(2):
            run.wait(run.rng.uniform(1, 4))
            outages.servers.postgres.stop()
            outages.servers.postgres.start()
            outages.returned()
    run.system.await_ready()
    outages.settled()
    assert not run.watch.died_since(began), "a process ended because the database restarted"


def test_the_same_post_many_times_at_once_is_one_execution(outages: Outages) -> None:
    run = outages.world
    asked = run.history.new()
    with ThreadPoolExecutor(CALLERS) as pool:
        told = list(pool.map(run.history.once, [asked] * CALLERS))
    assert told == ["ok"] * CALLERS
    url, key = run.system.address()
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": asked.key}
    other = httpx.post(
        f"{url}/v1/executions", json={"jobType": "noop"}, headers=headers, timeout=15, trust_env=False
    )
    assert other.status_code == 409, other.text
    found = outages.settled()
    starts = [event for event in found.stories[asked.execution_id].events if isinstance(event, StepRunning)]
    assert len(starts) == 1


def test_a_worker_that_wakes_after_its_lease_changes_nothing(outages: Outages) -> None:
    run, bootstrap = outages.world, outages.servers.bootstrap
    run.settle()
    first = psutil.Process(run.system.state["pids"]["worker"])
    with Stories(bootstrap) as stories, parcels.closed_gate(run.system.state["source_url"]) as open_gate:
        run.system.put_dataset(parcels.GATED_ID, parcels.GATED)
        asked = {run.history.submit(body=GATED).execution_id for _ in range(LANES)}
        waiting.until(lambda: len(owned(stories, asked)) == LANES, 60, "the worker to run them all")
        takes = owned(stories, asked)
        shown = {id: exhaust_view(run, id) for id in asked}
        assert {job["status"] for job in shown.values()} == {"PROCESSING"}
        first.suspend()
        run.watch.frozen[first.pid] = run.watch.now()
        open_gate()
        try:
            with away(OUTAGE_S), second_worker(first):
                waiting.until(lambda: ended(stories, asked), 120, "the work to be done by another")
                before = {id: list(stories.by_id[id].events) for id in asked}
                shown = {id: exhaust_view(run, id) for id in asked}
        finally:
            first.resume()
        assert {job["status"] for job in shown.values()} == {"COMPLETED"}
        assert takes.isdisjoint(winners(stories, asked))

        def woken() -> bool:
            """Each late take has told its outcome, or was told to be quiet."""
            return len(takes & outcomes(bootstrap)) + revoked(run) >= len(takes)

        waiting.until(woken, 90, "the late takes to end")
        late = len(takes & outcomes(bootstrap))
        waiting.until(lambda: stale(run) >= late, 60, "the manager to drop the late outcomes")
        stories.read_on()
        assert {id: stories.by_id[id].events for id in asked} == before
        assert {id: exhaust_view(run, id) for id in asked} == shown
        keys = [e.file.key for events in before.values() for e in events if isinstance(e, FilePublished)]
        assert keys and not [key for key in keys for take in takes if take in key]
    outages.settled()


def test_secrets_are_nowhere(outages: Outages) -> None:
    assert not outages.world.leaks(outages.folder)


def owned(stories: Stories, asked: set[str]) -> set[str]:
    """The takes that run a step of these executions now."""
    stories.read_on()
    return {take for id in asked if id in stories.by_id and (take := owner(stories.by_id[id]))}


def winners(stories: Stories, asked: set[str]) -> set[str]:
    """The takes whose outcome counted."""
    told = [event for id in asked for event in stories.by_id[id].events]
    return {event.causation_id for event in told if isinstance(event, StepCompleted)}


def owner(story: Story) -> str | None:
    """The take that runs the execution's step."""
    take = None
    for event in story.events:
        if isinstance(event, StepRunning):
            take = event.take_id
        elif type_of(event) in ("step.completed", "step.failed", "step.retry_scheduled"):
            take = None
    return take


def ended(stories: Stories, asked: set[str]) -> bool:
    """Whether the log has their terminal events."""
    stories.read_on()
    return not stories.unfinished(asked)


def outcomes(bootstrap: str) -> set[str]:
    """The takes that have said how they ended."""
    with Reader(bootstrap, "step.completed") as reader:
        records: list[Any] = [
            schemas.codec().decode("step.completed", message.value()) for message in reader.read()
        ]
    return {record.take_id for record in records if isinstance(record, StepOutcome)}


def exhaust_view(run: World, id: str) -> dict[str, Any]:
    """What S1 shows of a request; without what is signed anew for every answer."""
    url, key = run.system.address()
    path = f"{url}/data/v3/job/request/read/{history.TAG}/{id}"
    answer = httpx.get(path, headers={"Authorization": f"Bearer {key}"}, timeout=15, trust_env=False)
    job: dict[str, Any] = answer.raise_for_status().json()["result"]
    links = [link.partition("?")[0] for link in job["downloadURLs"]]
    return {**job, "downloadURLs": links, "expiresAt": None}


def revoked(run: World) -> float:
    """How many takes the first worker has stopped because it was told to."""
    return _counted(run, "worker", "steps_ended_total", "revoked")


def stale(run: World) -> float:
    """How many outcomes the manager has dropped, as it counts them."""
    return _counted(run, "manager", "stale_reports_total", "Outcome")


def _counted(run: World, process: str, metric: str, label: str) -> float:
    port = run.system.state["ports"][process]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5, trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith(metric) and label in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@contextmanager
def second_worker(like: psutil.Process) -> Iterator[None]:
    """Another worker with the settings of the first."""
    environ = {**like.environ(), "MILLSTREAM_HEALTH__PORT": str(free_port(0, set()))}
    process = subprocess.Popen(
        [sys.executable, "-m", "services.executor", "worker"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
