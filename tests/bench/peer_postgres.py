"""Procrastinate and DBOS, which keep everything in PostgreSQL: on the server of Millstream, fsync on."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from tests.bench.peer_celery import PYTHON, ROOT
from tests.bench.system import STOP_TIMEOUT_S, System, spawn
from tests.waiting import until

WORKERS = 2
TIMEOUT_S = 300.0
_VERSIONS = (
    "import json; from importlib.metadata import version as v;"
    " print(json.dumps({name: v(name) for name in ('procrastinate', 'dbos')}))"
)


@dataclass(frozen=True, slots=True)
class Engine:
    """A peer. `app` is its module here; the questions are SQL that answers true or false."""

    name: str
    app: str
    began: str
    works: str
    about: str


PROCRASTINATE = Engine(
    name="procrastinate",
    app="tests.bench.procrastinate_app",
    began="SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status <> 'todo')",
    works="SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))",
    about=f"Procrastinate, PostgreSQL (fsync on), {WORKERS} workers of 20 lanes, a task defers the next",
)
DBOS = Engine(
    name="dbos",
    app="tests.bench.dbos_app",
    began="SELECT EXISTS (SELECT 1 FROM dbos.workflow_status WHERE status <> 'ENQUEUED')",
    works="SELECT EXISTS (SELECT 1 FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING'))",
    about=f"DBOS, PostgreSQL (fsync on), {WORKERS} workers of 20 lanes, queue polled every 0.1 s",
)


class PostgresPeer:
    """Use `prepared`."""

    def __init__(self, engine: Engine, folder: Path, url: str) -> None:
        self._engine, self._folder, self._url = engine, folder, url
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "BENCH_DATABASE_URL": url,
        }

    def prepare(self) -> None:
        """Make its tables."""
        self._run("prepare")

    def drain_s(self, pipelines: int, steps: int) -> float:
        """Seconds from the first take to the last end of what was queued before the workers started."""
        self._run("fill", str(pipelines), str(steps))
        connection = psycopg2.connect(self._url)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor, self._workers():

                def answer(question: str) -> bool:
                    cursor.execute(question)
                    row = cursor.fetchone()
                    return bool(row and row[0])

                until(lambda: answer(self._engine.began), TIMEOUT_S, "the first take")
                started = time.perf_counter()
                until(lambda: not answer(self._engine.works), TIMEOUT_S, "the last end")
                return time.perf_counter() - started
        finally:
            connection.close()

    def _run(self, *words: str) -> None:
        command = [str(PYTHON), "-m", self._engine.app, *words]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def _workers(self) -> Iterator[None]:
        command = [str(PYTHON), "-m", self._engine.app, "work"]
        with (self._folder / f"{self._engine.name}.log").open("ab") as log:
            processes = [spawn(command, self._environment, log) for _ in range(WORKERS)]
        try:
            yield
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def prepared(engine: Engine, system: System) -> PostgresPeer:
    """A peer with a database of its own."""
    peer = PostgresPeer(engine, system.folder, system.stack.fresh_database())
    peer.prepare()
    return peer


def version() -> str:
    """Of both."""
    said = subprocess.run([str(PYTHON), "-c", _VERSIONS], check=True, capture_output=True, text=True).stdout
    return ", ".join(f"{name} {number}" for name, number in json.loads(said).items())
