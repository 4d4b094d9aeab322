"""`millstream dev`: start everything in order, keep it running, stop everything in order."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.cli.dev import orphans, parts, screen, servers
from services.cli.dev.broker import Broker
from services.cli.dev.child import Child, tail
from services.cli.dev.folder import DevError, Folder, write_private
from services.cli.dev.parts import OWNED_APART, PARTS, SCHEMAS, SOURCE
from services.cli.dev.postgres import Postgres
from services.runtime.settings import PREFIX, Kafka

TENANT = "demo"
COMMAND_TIMEOUT_S = 120.0
READY_TIMEOUT_S = 90.0
STARTS_MAX = 3
DRAIN_TIMEOUT_S = 30.0
TURN_S = 0.2


class Stopped(Exception):
    """The person asked to stop while things were still starting."""


class Supervisor:
    """Everything of one data folder. Use: `run()`, once."""

    def __init__(self, folder: Folder, environ: Mapping[str, str], stop: threading.Event) -> None:
        self._folder = folder
        self._environ = dict(environ)
        self._stop = stop
        self._broker: Broker | None = None
        self._postgres: Postgres | None = None
        self._children: list[Child] = []
        self._ports: dict[str, int] = {}
        self._state: dict[str, object] = {}

    def run(self) -> None:
        """Start, watch until asked to stop, stop.

        Raises SettingsError before anything starts, DevError when a part does not start.
        """
        began = time.monotonic()
        database_url = servers.given_database(self._environ)
        given_kafka = servers.given_kafka(self._environ)
        try:
            self._start(database_url, given_kafka)
            screen.line(f"\nready in {time.monotonic() - began:.1f} s; Ctrl-C drains and stops everything\n")
            while not self._stop.wait(TURN_S):
                self._tend()
        except Stopped:
            pass
        finally:
            self._shut_down()

    def _start(self, database_url: str | None, given_kafka: Kafka | None) -> None:
        self._end_orphans()
        self._ports = parts.choose_ports(self._folder, self._environ)
        self._record("starting")
        settings = given_kafka or Kafka(bootstrap_servers=f"127.0.0.1:{self._ports['kafka']}")
        shared = parts.shared_environment(self._folder, settings.bootstrap_servers, self._environ)
        with ThreadPoolExecutor(2) as pool:  # both at once: each mostly waits
            kafka = pool.submit(self._prepare_kafka, settings, given_kafka is None)
            database = pool.submit(self._prepare_database, database_url, shared)
            kafka.result()
            databases, api_key_file = database.result()
        self._check_stop()
        self._start_children(databases, shared | self._source(databases))
        self._state |= {
            "api_url": self._children[0].address,
            "api_key_file": str(api_key_file),
            "kafka_bootstrap": settings.bootstrap_servers,
            "database_url": databases.superuser_url,
            "database_url_files": {name: str(path) for name, path in databases.url_files.items()},
            "source_name": SOURCE,
            "source_url": databases.source_loader_url,
            "log_folder": str(self._folder.logs),
            "data_folder": str(self._folder.root),
        }
        self._record("ready")
        screen.line(f"\n  API          {self._children[0].address}")
        screen.line(f"  API key      {api_key_file.read_text().strip()}   (kept in {api_key_file})")
        screen.line(f"  tenant       {TENANT}   (the key's; its role is admin)")
        screen.line(
            f"  source       {SOURCE}: a database to load, source_url in state.json; it holds a sample table"
        )
        screen.line(f"  data folder  {self._folder.root}")
        screen.line(f"  logs         {self._folder.logs}")
        screen.line(f"  try          {self._folder.command} job submit --sample --wait")

    def _prepare_kafka(self, settings: Kafka, ours: bool) -> None:
        if ours:
            self._broker = servers.broker(self._folder, self._ports)
            with screen.part("kafka", self._broker.bootstrap):
                self._broker.start()
        start = time.monotonic()
        screen.good("topics", servers.apply_topics(settings), time.monotonic() - start)

    def _prepare_database(self, url: str | None, shared: Mapping[str, str]) -> tuple[servers.Databases, Path]:
        if url is not None:
            with screen.part("postgres", "the server of MILLSTREAM_DATABASE_URL"):
                databases = servers.foreign_databases(self._folder, url)
        else:
            self._postgres = servers.postgres(self._folder, self._ports)
            with screen.part("postgres", f"127.0.0.1:{self._ports['postgres']}"):
                self._postgres.start()
                databases = servers.own_databases(self._folder, self._postgres)
        self._check_stop()
        self._migrate(databases, shared)
        return databases, self._api_key(databases, shared)

    def _source(self, databases: servers.Databases) -> dict[str, str]:
        """The settings of the source that we provide, unless the user has one of that name."""
        key = f"{PREFIX}SOURCES__{SOURCE.upper()}"
        given = {key, f"{key}_FILE"} & self._environ.keys()
        ours = {f"{key}_FILE": str(databases.source_reader_file), f"{key}__TENANTS": TENANT}
        return {} if given else ours | {name: self._environ[name] for name in ours & self._environ.keys()}

    def _migrate(self, databases: servers.Databases, shared: Mapping[str, str]) -> None:
        def migrate(schema: str) -> None:
            owner = {f"{PREFIX}DATABASE_OWNER_URL_FILE": str(databases.owner_url_file)}
            own = owner if schema == OWNED_APART else {}
            _run((f"services.{schema}", "migrate"), shared, databases.url_files[schema], own)

        with screen.part("schemas", ", ".join(SCHEMAS)), ThreadPoolExecutor(len(SCHEMAS)) as pool:
            list(pool.map(migrate, SCHEMAS))

    def _api_key(self, databases: servers.Databases, shared: Mapping[str, str]) -> Path:
        path = self._folder.secrets / f"api-key{databases.identity}"
        if not path.exists():
            words = (
                "services.api",
                "create-key",
                "--tenant",
                TENANT,
                "--principal",
                "dev",
                "--role",
                "admin",
            )
            write_private(
                path, _run(words, shared, databases.url_files["api"]).strip().splitlines()[-1] + "\n"
            )
        return path

    def _start_children(self, databases: servers.Databases, shared: Mapping[str, str]) -> None:
        began = time.monotonic()
        for part in PARTS:
            environment = parts.environment(part, shared, databases.url_files, self._ports)
            log = self._folder.log(part.name)
            port, health_port = self._ports[part.name], self._ports[part.health]
            child = Child(part.name, parts.command(part.words), environment, log, port, health_port)
            child.start()
            self._children.append(child)
        self._record("starting")
        waiting = list(self._children)
        while waiting:
            self._check_stop()
            for child in [child for child in waiting if child.readiness() is None]:
                screen.good(child.name, child.address, time.monotonic() - began)
                waiting.remove(child)
            self._refuse_broken(waiting, began)
            self._stop.wait(TURN_S)

    def _refuse_broken(self, waiting: list[Child], began: float) -> None:
        for child in waiting:
            if line := child.tend():
                screen.note(line)
            if child.ends >= STARTS_MAX:
                found = f"found that it ended {child.ends} times:\n{tail(child.log)}"
                raise DevError(f"{child.name}: expected to start, {found}")
            if time.monotonic() - began > READY_TIMEOUT_S:
                why = child.readiness()
                raise DevError(
                    f"{child.name}: expected ready in {READY_TIMEOUT_S:g} s, found {why} ({child.log})"
                )

    def _tend(self) -> None:
        said = [line for line in (child.tend() for child in self._children) if line]
        for line in said:
            screen.note(line)
        for server, name in ((self._postgres, "postgres"), (self._broker, "kafka")):
            if server is not None and not server.is_running():
                screen.note(f"{name} ended; starts again (log: {self._folder.logs / f'{name}.log'})")
                with screen.part(name, "started again"):
                    server.start()
                said.append(name)
        if said:
            self._record("ready")

    def _shut_down(self) -> None:
        self._record("stopping")
        screen.line("\nstopping")
        for child in self._children:
            child.ask_to_stop()
        for child in self._children:
            self._stop_part(child.name, lambda child=child: child.wait(DRAIN_TIMEOUT_S))  # type: ignore[misc]
        if self._broker is not None:
            self._stop_part("kafka", self._broker.stop)
        if self._postgres is not None:
            self._stop_part("postgres", self._postgres.stop)
        self._record("stopped")

    def _stop_part(self, name: str, stop: Callable[[], bool | None]) -> None:
        start = time.monotonic()
        if stop() is False:
            screen.bad(f"      {name} did not drain within {DRAIN_TIMEOUT_S:g} s and was killed")
        screen.good(name, "stopped", time.monotonic() - start)

    def _end_orphans(self) -> None:
        """Before ports are chosen: what a killed run left still holds them. In the order of a clean stop."""
        for what, left in (
            ("processes", orphans.services(self._folder.secrets)),
            ("Kafka", orphans.brokers(self._folder.kafka)),
            ("PostgreSQL", orphans.databases(self._folder.postgres / "data")),
        ):
            if left:
                with screen.part(what, "ended: a killed run left it on this data folder"):
                    orphans.end(left)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _record(self, status: str) -> None:
        pids = {child.name: child.pid for child in self._children}
        for server, name in ((self._postgres, "postgres"), (self._broker, "kafka")):
            pids[name] = server.pid if server is not None and server.is_running() else None
        self._folder.record(
            {"status": status, "pid": os.getpid(), "ports": self._ports, "pids": pids, **self._state}
        )


def _run(
    words: tuple[str, ...], shared: Mapping[str, str], url_file: Path, own: Mapping[str, str] | None = None
) -> str:
    """Run one short command of a service to its end; its stdout. Raises DevError with what it said.

    `own` are settings for this command alone: of the shared ones none may name a database.
    """
    environment = parts.without_database(shared) | {f"{PREFIX}DATABASE_URL_FILE": str(url_file)}
    environment |= own or {}
    line = parts.command(words)
    result = subprocess.run(
        line, env=environment, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    if result.returncode != 0:
        said = "\n".join((result.stdout + result.stderr).strip().splitlines()[-15:])
        raise DevError(f"`{' '.join(line[1:])}`: expected exit code 0, found {result.returncode}:\n{said}")
    return result.stdout
