"""Fixtures of many modules. One that needs another api, client or stack overrides that alone.

No two modules share data: each has an api, a database and accounts of its own. Where processes use the fixed
topic names, or tests stop servers, the module overrides `stack` by `own`.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest

from services.runtime.kafka import Publisher
from tests.commanding import Millstream
from tests.integration.owed import Database
from tests.receiver import Receiver, receiving
from tests.serving import Api, serving
from tests.stack import OwnStack, Stack, own_stack
from tests.working import Gate, Manager, Workers


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    """A stack of the module's own."""
    with own_stack(tmp_path_factory.mktemp("own")) as started:
        yield started


@pytest.fixture(scope="module")
def publisher(stack: Stack) -> Iterator[Publisher]:
    made = Publisher(stack.kafka, "tests")
    yield made
    made.close(10)


@pytest.fixture
def millstream(stack: Stack, tmp_path: Path) -> Millstream:
    """The command, with the address of the broker."""
    return Millstream(tmp_path, {"MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap})


# ---------------------------------------------------------------- an api


@pytest.fixture(scope="module")
def api(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Over a database of the module's own."""
    with serving(stack.fresh_database(), tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[httpx.Client]:
    """Alice, an operator of `acme`."""
    with api.client() as made:
        yield made


@pytest.fixture(scope="module")
def anonymous(api: Api) -> Iterator[httpx.Client]:
    """Somebody without a key."""
    with api.client("") as made:
        yield made


@pytest.fixture
def id(client: httpx.Client) -> str:
    """An execution that was submitted; nothing has happened to it."""
    submitted: str = client.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
    return submitted


# ---------------------------------------------------------------- a manager, and workers


@pytest.fixture
def manager(stack: Stack) -> Iterator[Manager]:
    """The manager's side of the protocol."""
    manager = Manager(stack)
    yield manager
    manager.close()


@pytest.fixture
def workers(stack: Stack, tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(stack, tmp_path, stack.fresh_database())
    yield workers
    workers.end()


@pytest.fixture
def gate(workers: Workers) -> Iterator[Gate]:
    """Closed."""
    connection = psycopg2.connect(workers.source_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(1)")
    yield Gate(connection)
    connection.close()


# ---------------------------------------------------------------- a notifier's surroundings


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    """With the notifier's tables."""
    database = Database(stack.fresh_database())
    yield database
    database.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Of webhooks."""
    async with receiving() as receiver:
        yield receiver
