"""What a step costs beyond its work: 40 NOOP steps in sequence, against a commit of one row."""

import statistics
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

import psycopg2
from confluent_kafka import Consumer, TopicPartition

from services.runtime import kafka
from services.runtime.kafka import Publisher
from tests.bench import noops
from tests.bench.figures import Figure, Sample
from tests.bench.system import System

STEPS = 40
PIPELINES = 10
COMMITS = 400
WARM_UP = 3
TIMEOUT_S = 60.0

FIGURE = Figure(
    name="step_overhead_vs_commit",
    goal=6.0,
    better="lower",
    unit="ms",
    about=f"median from end to end of {STEPS} NOOP steps in sequence, {PIPELINES} pipelines one at a time",
    peer=f"median of {COMMITS} commits of one inserted row, fsync on, same server and run",
)
FIGURES = (FIGURE,)


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """Steps, then commits."""
    processes = [system.service("worker"), system.service("manager")]
    with psycopg2.connect(system.database_url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE public.bench_commit (id bigint PRIMARY KEY, text text NOT NULL)")
    steps_ms(system, WARM_UP)
    commits_ms(system, 0)
    for number in range(1, count + 1):
        ours = statistics.median(steps_ms(system, PIPELINES))
        yield {FIGURE.name: Sample(ours, statistics.median(commits_ms(system, number)))}
    for process in processes:
        process.stop()


def steps_ms(system: System, pipelines: int) -> list[float]:
    """Milliseconds from the end of each step to the end of the next one, as the log tells them."""
    publisher = Publisher(system.stack.kafka, "bench")
    consumer = Consumer(kafka.consumer_config(system.stack.kafka, "bench", "bench"))
    log = noops.Log(system)
    consumer.assign([TopicPartition(noops.EVENTS, part, end) for part, end in log.ends().items()])
    log.close()
    found: list[float] = []
    for request in noops.pipelines(pipelines, STEPS):
        noops.publish(publisher, [request])
        ends = _ends(consumer, request.execution_id.encode())
        assert len(ends) == STEPS
        found += [1000 * (later - earlier).total_seconds() for earlier, later in pairwise(ends)]
    consumer.close()
    publisher.close(5)
    return found


def _ends(consumer: Consumer, key: bytes) -> list[datetime]:
    """When each step of this execution ended, once all of it has."""
    ends: list[datetime] = []
    while True:
        message = consumer.poll(TIMEOUT_S)
        assert message is not None, f"the pipeline stands after {len(ends)} steps"
        headers: Any = dict(message.headers() or ())
        if message.key() != key:
            continue
        if headers["ce_type"] == b"step.completed":
            ends.append(datetime.fromisoformat(headers["ce_time"].decode()))
        assert headers["ce_type"] not in (b"step.failed", b"execution.failed"), message.value()
        if headers["ce_type"] == b"execution.completed":
            return ends


def commits_ms(system: System, number: int) -> list[float]:
    """Milliseconds of each insert and commit on a warm connection."""
    connection = psycopg2.connect(system.database_url)
    found: list[float] = []
    try:
        with connection.cursor() as cursor:
            for place in range(COMMITS):
                began = time.perf_counter()
                row = (number * COMMITS + place, "one row")
                cursor.execute("INSERT INTO public.bench_commit VALUES (%s, %s)", row)
                connection.commit()
                found.append(1000 * (time.perf_counter() - began))
    finally:
        connection.close()
    return found
