"""The one pass from COPY to the sealed file: what stops it stops both threads, and nothing leaks."""

import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest
import structlog

from services.contracts.commands import File
from services.executor.steps import STEPS
from services.executor.steps.outcome import Done, Outcome, Retry
from services.runtime import blobs
from services.runtime.blobs import Blobs, BlobsUnavailable, Writer
from services.runtime.container import CHUNK_BYTES
from tests import exporting
from tests.exporting import World, cut
from tests.stack import Stack, transaction

pytestmark = pytest.mark.postgres

CANARY = "canary-9c1d77"
ROWS = 400_000
DATASET = {
    "source": "main",
    "table": "public.lines",
    "columns": [{"name": "id", "type": "integer"}, {"name": "text", "type": "string"}],
    "filters": ["text"],
}


@pytest.fixture(scope="module")
def url(stack: Stack) -> str:
    url = stack.fresh_database()
    with transaction(url) as cursor:
        cursor.execute(
            "CREATE TABLE public.lines AS SELECT n AS id, %s || md5(n::text) AS text"
            " FROM generate_series(1, %s) AS n",
            (CANARY, ROWS),
        )
    return url


@pytest.fixture
def pumps() -> Iterator[None]:
    """No second thread outlives its file."""
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.endswith("-pump")] == []


def run(world: World, **changes: Any) -> Outcome:
    request = exporting.step(DATASET, **changes)
    return STEPS[request.kind].run(request, world.context())


class Interrupted:
    """A store whose writers call `at_third` when they are given their third piece."""

    def __init__(self, store: Blobs) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create(self, key: str) -> Writer:
        return _Counting(self._store.create(key), self)

    def at_third(self) -> None:
        raise BlobsUnavailable("the disk is full")


class _Counting:
    def __init__(self, writer: Writer, store: Interrupted) -> None:
        self._writer, self._store, self._pieces = writer, store, 0

    def write(self, data: bytes) -> int:
        self._pieces += 1
        if self._pieces == 3:
            self._store.at_third()
        return self._writer.write(data)

    def finish(self) -> None:
        self._writer.finish()

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)


@pytest.mark.usefixtures("pumps")
def test_many_chunks_are_one_file(url: str) -> None:
    world = World({"main": url})
    outcome = run(world)
    assert isinstance(outcome, Done)
    file = outcome.files[0]
    content = world.content(file.key)
    assert content == exporting.psql_copy(url, "SELECT id, text FROM lines")
    assert file.bytes == len(content) > 10 * CHUNK_BYTES
    assert world.blobs.size(file.key) < file.bytes


@pytest.mark.usefixtures("pumps")
def test_a_store_that_fails_in_the_middle_stops_the_copy(url: str) -> None:
    store: Any = Interrupted(blobs.in_memory())
    world = World({"main": url}, blobs=store)
    assert run(world) == Retry("blobs_unavailable", "the blob store cannot take the files now")
    assert [*world.blobs.list("executions")] == []


@pytest.mark.usefixtures("pumps")
def test_a_take_that_is_cancelled_in_the_middle_stops_the_copy(url: str) -> None:
    store: Any = Interrupted(blobs.in_memory())
    world = World({"main": url}, blobs=store)
    store.at_third = lambda: world.cancelled.set("worker_stopped")
    outcome = run(world)
    assert isinstance(outcome, Retry)
    assert outcome.reason == "worker_stopped"
    assert [*world.blobs.list("executions")] == []


@pytest.mark.usefixtures("pumps")
def test_a_source_that_is_lost_in_the_middle_is_tried_again(url: str) -> None:
    store: Any = Interrupted(blobs.in_memory())
    world = World({"main": url}, blobs=store)
    store.at_third = lambda: cut(url)
    outcome = run(world)
    assert isinstance(outcome, Retry)
    assert outcome.reason == "source_unavailable"
    assert [*world.blobs.list("executions")] == []


def sinks(world: World, outcome: Outcome, lines: Any) -> dict[str, str]:
    """Everywhere that something is said while a file is made (matrix J, as far as files go there)."""
    stored = b"".join(b"".join(world.blobs.read(info.key)) for info in world.blobs.list("executions"))
    files: tuple[File, ...] = outcome.files if isinstance(outcome, Done) else ()
    return {
        "app log and step log": str(lines),
        "topic, outbox and dead letter: outcome": str(outcome),
        "topic: parts": str(world.parts),
        "manifest": "".join(
            world.content(file.key).decode() for file in files if file.name == "manifest.json"
        ),
        "blob store at rest": stored.decode("latin-1"),
    }


def test_content_and_keys_reach_no_sink_but_the_sealed_file(url: str) -> None:
    secrets = [CANARY, *(key.decode("latin-1") for key in exporting.KEYS.values()), exporting.keys_text()[3:]]
    lost: Any = Interrupted(blobs.in_memory())
    for world in (World({"main": url}), World({"main": url}, blobs=lost), World({"main": f"{url}x"})):
        with structlog.testing.capture_logs() as lines:
            outcome = run(world, params={"filters": [{"column": "text", "op": "gt", "value": CANARY}]})
        for sink, said in sinks(world, outcome, lines).items():
            assert not [secret for secret in secrets if secret in said], sink
