"""The p99 of submits while 20 clients store large definitions, against the same api with nobody else.

A definition is a pipeline of 48 kB of YAML, another one with each PUT. Whoever is refused because too many
wait comes again after the second that Retry-After says.
"""

import http.client
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psycopg2
import yaml

from services.api import keys
from services.api.keys import Caller, Role
from tests.bench.durable_submits_vs_bare_asgi import api_key
from tests.bench.figures import Figure, Sample
from tests.bench.system import Process, System

WRITERS, SECONDS, WARM_UP_S = 20, 6.0, 2.0
STEPS, OUTPUTS = 60, 30

FIGURE = Figure(
    name="submits_beside_definitions",
    goal=2.0,
    better="lower",
    unit="ms",
    about=f"p99 of submits, one after the other, while {WRITERS} clients PUT pipelines of 48 kB of YAML",
    peer="the same with nobody else",
)
FIGURES = (FIGURE,)


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """Alone, then beside the writers."""
    api, key = system.service("api"), api_key(system)
    p99_ms(api, key, "warm", WARM_UP_S)
    for number in range(count):
        alone = p99_ms(api, key, f"alone-{number}", SECONDS)
        with writers(api, operator(system), number) as stored:
            beside = p99_ms(api, key, f"beside-{number}", SECONDS)
        assert len(stored) > SECONDS, "definitions were stored meanwhile"
        yield {FIGURE.name: Sample(beside, alone)}


def p99_ms(process: Process, key: str, name: str, seconds: float) -> float:
    """Of submits on one connection, each of them accepted."""
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60)
    head = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body = b'{"jobType":"noop","name":"nightly flights of the east","tag":"east","params":{}}'
    took: list[float] = []
    until = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < until:
        more = {"Idempotency-Key": f"{name}-{len(took)}"}
        connection.request("POST", "/v1/executions", body, {**head, **more})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 202, answer.status
        took.append((time.perf_counter() - begun) * 1000)
    connection.close()
    return statistics.quantiles(took, n=100)[98]


@contextmanager
def writers(process: Process, key: str, number: int) -> Iterator[list[int]]:
    """Clients that store definitions until the block ends; the statuses of what was stored."""
    stored: list[int] = []
    stop = threading.Event()
    threads = [
        threading.Thread(target=_write, args=(process.url, key, f"large-{number}-{client}", stop, stored))
        for client in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield stored
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def _write(url: str, key: str, id: str, stop: threading.Event, stored: list[int]) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/yaml"}
    text = definition()
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        count = 0
        while not stop.is_set():
            count += 1
            content = text.replace("title", f"title {count}", 1)
            answer = client.put(f"/v1/pipelines/{id}", content=content)
            if answer.status_code == 503:
                stop.wait(float(answer.headers["Retry-After"]))
            else:
                stored.append(answer.raise_for_status().status_code)


def definition() -> str:
    """A pipeline as YAML."""
    steps = [
        {
            "step_name": f"step {step}",
            "step_type": "TRANSFORM",
            "parameters": {"output": {f"key_{one}": f"$.value_{one}" for one in range(OUTPUTS)}},
        }
        for step in range(STEPS)
    ]
    return yaml.safe_dump({"description": "title", "steps": steps}, sort_keys=False)


def operator(system: System) -> str:
    """A key that may store definitions."""
    with psycopg2.connect(system.database_url) as connection, connection.cursor() as cursor:
        return keys.create(cursor, Caller("bench", "writer", Role.OPERATOR))
