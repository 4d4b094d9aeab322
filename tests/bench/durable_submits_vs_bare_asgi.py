"""Submits through the API, each authenticated, validated and committed before its answer: how many a second.

One api process takes them from 32 kept-alive connections, and its relay publishes them to Kafka meanwhile;
the load comes from `wrk`, every request with its own key, from 32 clients with their tags. The peer is the
same server (uvicorn, uvloop, httptools) with an application that stores nothing.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from services.api import keys
from services.api.keys import Caller, Role
from services.cli.dev.folder import free_port
from tests.bench.figures import Figure, Sample
from tests.bench.system import Process, System, spawn
from tests.waiting import until

CLIENTS = 32
SECONDS = 8
WARM_UP_S = 3
SCRIPT = """\
local head = {["Content-Type"] = "application/json", ["Authorization"] = "Bearer %s"}
local count = 0
function request()
  count = count + 1
  head["Idempotency-Key"] = "%s-" .. count
  local tag = "client-" .. count %% 32
  local body = '{"jobType":"noop","name":"nightly flights of the east","tag":"' .. tag .. '","params":{}}'
  return wrk.format("POST", "/v1/executions", head, body)
end
"""

FIGURE = Figure(
    name="durable_submits_vs_bare_asgi",
    goal=0.45,
    better="higher",
    unit="submits/s",
    about=f"noop with Idempotency-Key, {CLIENTS} connections, one api process, fsync on, published meanwhile",
    peer="bare ASGI + msgspec on uvicorn (uvloop, httptools): the same requests, nothing stored",
)
FIGURES = (FIGURE,)


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """Ours, then the peer's; none of ours is left unpublished or unstored."""
    api, key = system.service("api"), api_key(system)
    answered = 0
    with bare(system) as peer:
        for process in (api, peer):
            load(system.folder, process, key, "warm", WARM_UP_S)
        before = stored(system)
        for number in range(count):
            ours, requests = load(system.folder, api, key, f"round-{number}", SECONDS)
            answered += requests
            until(lambda: not waiting(system), 120, "the outbox to be empty")
            theirs, _ = load(system.folder, peer, key, "peer", SECONDS)
            yield {FIGURE.name: Sample(ours, theirs)}
        assert stored(system) - before >= answered, "an answer without a row"


def load(folder: Path, process: Process, key: str, name: str, seconds: int) -> tuple[float, int]:
    """Answers a second, and how many; each of them a 2xx."""
    script = folder / "submit.lua"
    script.write_text(SCRIPT % (key, name), encoding="utf-8")
    words = ("wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "-s", str(script), process.url)
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in told, told
    requests = int(re.findall(r"(\d+) requests in", told)[0])
    return float(re.findall(r"Requests/sec:\s+([0-9.]+)", told)[0]), requests


@contextmanager
def bare(system: System) -> Iterator[Process]:
    """The peer's process."""
    port = free_port(0, set())
    words = [sys.executable, "-m", "uvicorn", "tests.bench.bare_asgi:app", "--no-access-log"]
    flags = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--lifespan", "off"]
    path = system.folder / "bare.log"
    with path.open("wb") as log:
        popen = spawn([*words, *flags], system.environment({}), log)
    process = Process(popen, port, port, path)
    try:
        until(lambda: "running on" in path.read_text(encoding="utf-8"), 30, "the peer to serve")
        yield process
    finally:
        process.stop()


def api_key(system: System) -> str:
    """A key that may submit."""
    with psycopg2.connect(system.database_url) as connection, connection.cursor() as cursor:
        return keys.create(cursor, Caller("bench", "bench", Role.AUTHOR))


def waiting(system: System) -> int:
    """Rows in the outbox."""
    return _count(system, "outbox")


def stored(system: System) -> int:
    """Requests in the table."""
    return _count(system, "job_request")


def _count(system: System, table: str) -> int:
    with psycopg2.connect(system.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM api.{table}")
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])
