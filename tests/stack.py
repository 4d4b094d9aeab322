"""A real Kafka broker and a real PostgreSQL server for tests.

`stack` (a session fixture, see conftest.py) is one broker and one server for the whole test run, shared by
all xdist workers. Isolation is by data: `stack.fresh_database()` and `stack.fresh_topics(...)`. A test that
stops, kills or wipes servers, or that runs whole processes on the fixed topic names, takes its own with
`own_stack(folder)`.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from confluent_kafka.cimpl import NewTopic

from services.api import grants
from services.cli import topics as declared_topics
from services.cli.dev import jars, orphans, roles
from services.cli.dev.broker import Broker
from services.cli.dev.folder import free_port
from services.cli.dev.postgres import Postgres
from services.runtime import kafka
from services.runtime.settings import Kafka

FOLDER_VARIABLE = "TEST_STACK_FOLDER"
PASSWORD = "test-only"
REMEMBERED = "folders.txt"
TOPIC_TIMEOUT_S = 30.0

_number = count(1)


@contextmanager
def transaction(database_url: str) -> Iterator[Any]:
    """The cursor of one transaction, on a connection of its own."""
    connection = psycopg2.connect(database_url)
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


class Stack:
    """Addresses of a running broker and server, and ways to get something of one's own on them."""

    def __init__(self, bootstrap: str, database_url: str) -> None:
        self.bootstrap = bootstrap
        self.database_url = database_url
        """The superuser's URL of the database `postgres`; tests work in a `fresh_database()`."""

    @property
    def kafka(self) -> Kafka:
        """The settings section that the runtime modules take."""
        return Kafka(bootstrap_servers=self.bootstrap)

    def fresh_database(self) -> str:
        """Create an empty database and return the superuser's URL of it; it goes when the stack goes."""
        name = f"test_{os.getpid()}_{next(_number)}"
        connection = psycopg2.connect(self.database_url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        finally:
            connection.close()
        return f"{self.database_url.rpartition('/')[0]}/{name}"

    def fresh_topics(self, partitions: Mapping[str, int]) -> dict[str, str]:
        """Create uniquely named topics: {"job.requested": 12} -> {"job.requested": "job.requested.t81n1"}.

        Settings (cleanup policy, sizes) are those of the declared topic of that name, where there is one.
        """
        declared = {topic.name: topic.broker_config() for topic in declared_topics.declared()}
        names = {base: f"{base}.t{os.getpid()}n{next(_number)}" for base in partitions}
        wanted = [
            NewTopic(names[base], number, 1, config=declared.get(base, {}))
            for base, number in partitions.items()
        ]
        with kafka.Admin(self.kafka, "tests") as admin:
            for future in admin.create_topics(wanted, operation_timeout=TOPIC_TIMEOUT_S).values():
                future.result(TOPIC_TIMEOUT_S)
            declared_topics.await_visible(admin, list(names.values()))
        return names

    def apply_topics(self) -> None:
        """Create every declared topic under its own name (once per broker; the shared one has them)."""
        with kafka.Admin(self.kafka, "tests") as admin:
            _, different = declared_topics.apply_to(admin)
        assert not different, different


class OwnStack(Stack):
    """A stack whose servers the test may stop, kill and start again: `broker` and `postgres`."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        taken: set[int] = set()
        self.broker = Broker(
            folder / "kafka", jars.ensure(), folder / "kafka.log", free_port(0, taken), free_port(0, taken)
        )
        self.postgres = Postgres(
            folder / "postgres", folder / "postgres.log", free_port(0, taken), PASSWORD, durable=durable
        )
        super().__init__(self.broker.bootstrap, self.postgres.url("postgres"))

    def start(self) -> None:
        """Start both and apply the declared topics."""
        self.postgres.start()
        self.broker.start()
        self.apply_topics()

    def stop(self) -> None:
        """Stop both."""
        self.broker.stop()
        self.postgres.stop()


@contextmanager
def own_stack(folder: Path) -> Iterator[OwnStack]:
    """A stack for one test or module, in `folder` (a tmp_path); about 7 s and 300 MB."""
    remember(folder)
    stack = OwnStack(folder)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def as_service(database_url: str) -> str:
    """The URL of the role with which api serves on a migrated database that the given role owns."""
    with _locked(Path(os.environ[FOLDER_VARIABLE]) / "roles.lock"):  # roles are the server's
        roles.ensure_role(database_url, "ms_api", PASSWORD)
    url = roles.as_role(database_url, "ms_api", PASSWORD)
    grants.give(database_url, url)
    return url


def remember(folder: Path) -> None:
    """Have whatever runs on this folder ended when the run ends, however it ends."""
    with (Path(os.environ[FOLDER_VARIABLE]) / REMEMBERED).open("a", encoding="utf-8") as file:
        file.write(f"{folder}\n")


def shared() -> Stack:
    """The stack of this test run, started by the first process that asks; never stopped by it.

    Raises MissingTool when something must be installed first, DevError when a server does not start.
    """
    folder = Path(os.environ[FOLDER_VARIABLE])
    addresses = folder / "addresses.json"
    with _locked(folder / "start.lock"):
        if not addresses.exists():
            jars.java_version()
            stack = OwnStack(folder)
            try:
                stack.start()
            except BaseException:
                stack.stop()
                raise
            stack.broker.leave()
            stack.postgres.leave()
            addresses.write_text(json.dumps([stack.bootstrap, stack.database_url]), encoding="utf-8")
        bootstrap, database_url = json.loads(addresses.read_text(encoding="utf-8"))
    return Stack(bootstrap, database_url)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Session:
    """The folder of one test run, held by the process that controls the run.

    The servers are started lazily by whichever worker first needs them and are ended by the controller,
    which outlives all workers. A controller that was killed leaves its folder unlocked: the next run ends
    the servers of such folders and removes them.
    """

    def __init__(self) -> None:
        self._root = Path(tempfile.gettempdir()) / f"millstream-tests-{os.getuid()}"
        self._root.mkdir(exist_ok=True)
        with _locked(self._root / "sweep.lock"):  # or a run that begins would sweep another that begins
            self._sweep()
            self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=self._root))
            self._lock = (self.folder / "controller.lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.environ[FOLDER_VARIABLE] = str(self.folder)

    def end(self) -> None:
        """End the servers and remove the folder."""
        _end(self.folder)
        self._lock.close()

    def _sweep(self) -> None:
        for folder in self._root.glob("run-*"):
            # held by a run that goes on, or gone with a run that has just ended
            with suppress(BlockingIOError, FileNotFoundError), (folder / "controller.lock").open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _end(folder)


def _end(run: Path) -> None:
    remembered = run / REMEMBERED
    others = remembered.read_text(encoding="utf-8").splitlines() if remembered.exists() else []
    for folder in (run, *map(Path, others)):
        # a supervisor first: it would start again what is ended under it
        orphans.end(_supervisors(folder))
        orphans.end(orphans.services(folder / "secrets"))
        orphans.end(orphans.brokers(folder / "kafka"))
        orphans.end(orphans.databases(folder / "postgres" / "data"))
    shutil.rmtree(run, ignore_errors=True)


def _supervisors(folder: Path) -> list[psutil.Process]:
    def is_ours(process: psutil.Process) -> bool:
        line = process.cmdline()
        return "dev" in line and "--data" in line and str(folder) in line

    return orphans.search(is_ours)
