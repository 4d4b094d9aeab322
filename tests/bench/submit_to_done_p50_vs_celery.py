"""How long one NOOP job takes from its record on `job.requested` to its terminal event, 20 a second."""

import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from services.contracts import envelope
from services.runtime import kafka
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from tests.bench import noops, peer_celery
from tests.bench.figures import Figure, Sample
from tests.bench.system import System

JOBS = 300
WARM_UP = 200
RATE = 20.0
TIMEOUT_S = 60.0

P50 = Figure(
    name="submit_to_done_p50_vs_celery",
    goal=1.2,
    better="lower",
    unit="ms",
    about=f"median of {JOBS} noops, {RATE:.0f} a second: from produce until the terminal event is read",
    peer=f"{peer_celery.PEER}: delay() until get() returns",
)
P99 = Figure(
    name="submit_to_done_p99_vs_own_p50",
    goal=3.0,
    better="lower",
    unit="ms",
    about="the 99th percentile of the same",
    peer="its own median",
)
FIGURES = (P50, P99)


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """Ours, then Celery's."""
    processes = [system.service("worker"), system.service("manager")]
    with peer_celery.running(system.folder / "celery-latency") as celery:
        latencies_ms(system, WARM_UP, RATE * 5)
        for _ in range(count):
            ours = latencies_ms(system, JOBS, RATE)
            peer = [1000 * value for value in celery.latencies_s(JOBS, RATE)]
            p50 = statistics.median(ours)
            yield {
                P50.name: Sample(p50, statistics.median(peer)),
                P99.name: Sample(statistics.quantiles(ours, n=100)[98], p50),
            }
    for process in processes:
        process.stop()


def latencies_ms(system: System, jobs: int, rate: float) -> list[float]:
    """Milliseconds of each job."""
    publisher = Publisher(system.stack.kafka, "bench")
    publisher.warm_up(["job.requested"])
    config = kafka.consumer_config(system.stack.kafka, "bench", "bench") | {"auto.offset.reset": "latest"}
    consumer = Consumer(config)
    log = noops.Log(system)
    consumer.assign([TopicPartition(noops.EVENTS, part, end) for part, end in log.ends().items()])
    log.close()
    noops.publish(publisher, wanted := noops.requests(jobs)[:1])  # connections are open from here on
    wanted = noops.requests(jobs)
    sent: dict[bytes, float] = {}
    sender = threading.Thread(target=_send, args=(publisher, wanted, rate, sent))
    sender.start()
    found = _await_ends(consumer, {request.execution_id.encode() for request in wanted}, sent)
    sender.join()
    consumer.close()
    publisher.close(5)
    return found


def _send(publisher: Publisher, wanted: list[Any], rate: float, sent: dict[bytes, float]) -> None:
    pause = threading.Event()
    due = time.perf_counter()
    for request in wanted:
        due += 1 / rate
        pause.wait(max(0.0, due - time.perf_counter()))
        sent[request.execution_id.encode()] = time.perf_counter()
        record = envelope.command(request, codec().encode(request))
        publisher.publish(record.topic, record.key, record.value, record.headers)


def _await_ends(consumer: Consumer, waiting: set[bytes], sent: dict[bytes, float]) -> list[float]:
    found: list[float] = []
    while waiting:
        message = consumer.poll(TIMEOUT_S)
        assert message is not None, f"{len(waiting)} jobs did not end"
        now = time.perf_counter()
        headers: Any = dict(message.headers() or ())
        key = message.key() or b""
        if key in waiting and headers["ce_type"] == b"execution.completed":
            waiting.discard(key)
            found.append(1000 * (now - sent[key]))
    return found
