"""What `millstream dev` runs: one row per process. A new process is one row here."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.cli.dev.folder import Folder, free_port, new_key
from services.runtime.settings import PREFIX

SCHEMAS = ("api", "executor", "notifier")
"""Every service with tables: the role `ms_<schema>`, and `python -m services.<schema> migrate`."""

OWNED_APART = "api"
"""The service that owns none of its tables: one of them it may only add to."""

SOURCE = "flights"
"""A source database that `dev` provides on its own server, empty, for the demo and for trying things."""


@dataclass(frozen=True)
class Part:
    """One supervised process: its command line, its role in the database and its preferred ports."""

    name: str
    words: tuple[str, ...]
    schema: str | None
    health_port: int
    port: int | None = None
    """Where it takes requests, if it does."""

    @property
    def health(self) -> str:
        """The name of its health port among the ports."""
        return self.name if self.port is None else f"{self.name}-health"

    @property
    def ports(self) -> dict[str, int]:
        """Name -> preferred port."""
        return {self.health: self.health_port} | ({} if self.port is None else {self.name: self.port})

    def port_settings(self, ports: Mapping[str, int]) -> dict[str, str]:
        """The settings that give it its ports."""
        own = {} if self.port is None else {f"{PREFIX}API__PORT": str(ports[self.name])}
        return {f"{PREFIX}HEALTH__PORT": str(ports[self.health]), **own}


PARTS = (
    Part("api", ("services.api",), "api", 8084, port=8080),
    Part("manager", ("services.executor", "manager"), "executor", 8081),
    Part("worker", ("services.executor", "worker"), None, 8082),
    Part("notifier", ("services.notifier",), "notifier", 8083),
)
PORTS = {"kafka": 9092, "controller": 9093, "postgres": 5432} | {
    name: port for part in PARTS for name, port in part.ports.items()
}
REPOSITORY = Path(__file__).parents[3]


def choose_ports(folder: Folder, environ: Mapping[str, str]) -> dict[str, int]:
    """A free port for each server and process: the recorded one, else the default, else any.

    A port that the user set is taken as it is.
    """
    recorded = folder.state().get("ports", {})
    taken: set[int] = set()
    ports = {name: free_port(int(recorded.get(name, default)), taken) for name, default in PORTS.items()}
    api = environ.get(f"{PREFIX}API__PORT")
    return ports | ({"api": int(api)} if api else {})


def shared_environment(folder: Folder, bootstrap: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that all processes share; what the user set goes first.

    Secrets are given as files in the data folder, made once: neither `ps` nor a log can show them.
    """
    ours = {
        f"{PREFIX}BLOBS__URL": f"file://{folder.blobs}",
        f"{PREFIX}SEALING__KEYS_FILE": str(folder.secret("sealing-keys", new_key)),
        f"{PREFIX}FILES__KEYS_FILE": str(folder.secret("file-keys", new_key)),
        f"{PREFIX}LINKS__KEYS_FILE": str(folder.secret("link-keys", new_key)),
        f"{PREFIX}OUTBOUND__ALLOW": "127.0.0.0/8",
        f"{PREFIX}WORKER__LOG_FOLDER": str(folder.root / "executor_logs"),
    }
    if f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS" not in environ:  # the broker is ours and set up for it
        ours[f"{PREFIX}KAFKA__GROUP_PROTOCOL"] = "consumer"
    kept = {
        key: value
        for key, value in ours.items()
        if key not in environ and key.removesuffix("_FILE") not in environ
    }
    return {
        **environ,
        **kept,
        f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), environ.get("PYTHONPATH")])),
    }


def environment(
    part: Part, shared: Mapping[str, str], url_files: Mapping[str, Path], ports: Mapping[str, int]
) -> dict[str, str]:
    """What one process is given: the shared settings, its own role's URL and its ports."""
    own = without_database(shared)
    if part.schema is not None:
        own[f"{PREFIX}DATABASE_URL_FILE"] = str(url_files[part.schema])
    return own | part.port_settings(ports)


def without_database(shared: Mapping[str, str]) -> dict[str, str]:
    """The shared settings without the URL that the user gave to `dev` itself."""
    keys = (f"{PREFIX}DATABASE_URL", f"{PREFIX}DATABASE_OWNER_URL")
    hidden = (*keys, *(f"{key}_FILE" for key in keys))
    return {key: value for key, value in shared.items() if key not in hidden}


def command(words: tuple[str, ...]) -> list[str]:
    """The command line of a module with this interpreter."""
    return [sys.executable, "-m", *words]
