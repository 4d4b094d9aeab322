"""The search for secrets that were given to us: everywhere we keep or say anything."""

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka.admin import AdminClient

from services.cli.dev import postgres
from tests.faults.harness.history import History
from tests.faults.harness.system import System
from tests.faults.harness.topic import Reader


def search(system: System, history: History, *folders: Path) -> list[str]:
    """Where a secret was found, in clear, in hex (bytea in a dump) or in base64.

    `folders` hold `kafka` and `postgres` where those are not in the data folder.
    """
    needles = [
        form
        for secret in (history.secrets.canary, history.secrets.signing, history.secrets.signing[6:])
        for form in _forms(secret.encode())
    ]
    found = []
    for place, text in _places(system, history, folders):
        found += [f"{place} holds a secret" for needle in needles if needle in text]
    return sorted({*found})


def _forms(secret: bytes) -> tuple[bytes, ...]:
    # base64 of the same bytes differs by their place in the text; the inner characters do not
    shifted = tuple(base64.b64encode(b"\0" * shift + secret)[4:-4] for shift in range(3))
    return (secret, secret.hex().encode(), *shifted)


def _places(system: System, history: History, folders: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    state = system.state
    yield "output of dev", "".join(system.outputs).encode()
    for path in Path(state["log_folder"]).iterdir():
        yield f"log {path.name}", path.read_bytes()
    yield from _topics(state["kafka_bootstrap"])
    yield "dump of the database", _dump(state["database_url"])
    for folder in (Path(state["data_folder"]), *folders):
        yield from _raw(folder)
    yield from _answers(system, history)


def _topics(bootstrap: str) -> Iterator[tuple[str, bytes]]:
    names = list(AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=30).topics)
    assert any(name.endswith(".dlq") for name in names)
    for name in names:
        with Reader(bootstrap, name) as reader:
            for message in reader.read():
                given: dict[str, Any] = dict(message.headers() or [])
                headers = b"\0".join(key.encode() + b"=" + (value or b"") for key, value in given.items())
                content = (message.key() or b"") + b"\0" + (message.value() or b"") + b"\0" + headers
                yield f"topic {name}", content


def _dump(url: str) -> bytes:
    command = [str(postgres.binaries() / "pg_dump"), "--inserts", "--dbname", url]
    return subprocess.run(command, capture_output=True, check=True).stdout


def _raw(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes on disk: tables, write-ahead log, segments of the broker, files."""
    for part in ("postgres", "kafka", "blobs"):
        for place, _, names in os.walk(folder / part):
            for name in names:
                try:
                    yield f"file {part}/{name}", (Path(place) / name).read_bytes()
                except (FileNotFoundError, PermissionError):
                    continue


def _answers(system: System, history: History) -> Iterator[tuple[str, bytes]]:
    url, key = system.address()
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
    ) as client:
        for id in history.accepted():
            yield f"GET {id}", client.get(f"/v1/executions/{id}").content
            yield f"GET {id}/events", client.get(f"/v1/executions/{id}/events").content
        yield "GET /v1/executions", client.get("/v1/executions").content
