"""The search for secrets that were given to us: everywhere we keep or say anything."""

import base64
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from services.cli.dev import postgres
from services.runtime import kafka
from services.runtime.settings import Kafka
from tests.faults.harness.topic import Reader
from tests.waiting import PROGRAM_S

Place = tuple[str, bytes]


def search(secrets: Iterable[str], places: Iterable[Place]) -> list[str]:
    """Where a secret was found, in clear, in hex (bytea in a dump) or in base64."""
    needles = [form for secret in secrets for form in _forms(secret.encode())]
    return sorted({place for place, text in places for needle in needles if needle in text})


def places(state: Mapping[str, Any], key: str, executions: Iterable[str]) -> Iterator[Place]:
    """Everything that a running `millstream dev` says; `state` is its state.json, `key` an API key."""
    for path in Path(state["log_folder"]).iterdir():
        yield f"log {path.name}", path.read_bytes()
    yield from _topics(state["kafka_bootstrap"])
    yield "dump of the database", _dump(state["database_url"])
    for path in (Path(state["data_folder"]) / "executor_logs").rglob("*.log"):
        yield f"step log {path.name}", path.read_bytes()
    yield from _answers(state["api_url"], key, executions)


def _forms(secret: bytes) -> tuple[bytes, ...]:
    # base64 of the same bytes differs by their place in the text; the inner characters do not
    shifted = tuple(base64.b64encode(b"\0" * shift + secret)[4:-4] for shift in range(3))
    return (secret, secret.hex().encode(), *shifted)


def _topics(bootstrap: str) -> Iterator[Place]:
    with kafka.Admin(Kafka(bootstrap_servers=bootstrap), "tests-canary") as admin:
        names = list(admin.list_topics(timeout=30).topics)
    assert any(name.endswith(".dlq") for name in names)
    with ThreadPoolExecutor(8) as threads:  # reading to an end is waiting, mostly
        for places in threads.map(lambda name: list(_topic(bootstrap, name)), names):
            yield from places


def _topic(bootstrap: str, name: str) -> Iterator[Place]:
    with Reader(bootstrap, name) as reader:
        for message in reader.read():
            given: dict[str, Any] = dict(message.headers() or [])
            headers = b"\0".join(key.encode() + b"=" + (value or b"") for key, value in given.items())
            content = (message.key() or b"") + b"\0" + (message.value() or b"") + b"\0" + headers
            yield f"topic {name}", content


def _dump(url: str) -> bytes:
    command = [str(postgres.binaries() / "pg_dump"), "--inserts", "--dbname", url]
    return subprocess.run(command, capture_output=True, check=True, timeout=PROGRAM_S).stdout


def on_disk(folder: Path) -> Iterator[Place]:
    """The bytes below a data folder: tables, write-ahead log, segments of the broker, files."""
    for part in ("postgres", "kafka", "blobs"):
        for place, _, names in os.walk(folder / part):
            for name in names:
                try:
                    yield f"file {part}/{name}", (Path(place) / name).read_bytes()
                except (FileNotFoundError, PermissionError):
                    continue


def _answers(url: str, key: str, executions: Iterable[str]) -> Iterator[Place]:
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
    ) as client:
        for id in executions:
            answer = client.get(f"/v1/executions/{id}")
            yield f"GET {id}", answer.content
            yield f"GET {id}/events", client.get(f"/v1/executions/{id}/events").content
            for step in answer.json().get("steps", ()):
                path = f"/v1/executions/{id}/steps/{step['name']}/log"
                yield f"GET {path}", client.get(path).content
        for path in ("/v1/executions", "/v1/datasets", "/openapi.json"):
            yield f"GET {path}", client.get(path).content
