"""Celery's side, run by the interpreter of `.venv/bench`, which knows nothing of Millstream.

`python -m tests.bench.celery_app drain N`: queue N tasks, say `queued`, and once a worker has done them all
write the seconds from its first take to its last acknowledgement.
`... latency N RATE`: ask for N tasks at RATE a second; write the seconds from each call to its result.
"""

import json
import os
import sys
import threading
import time

import redis
from celery import Celery

from tests.waiting import until

URL = os.environ["BENCH_REDIS_URL"]
QUEUE = "celery"
UNACKED = "unacked"
TIMEOUT_S = 300.0

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(task_acks_late=True, task_ignore_result=False, worker_send_task_events=False)


def nothing() -> None:
    """What NOOP does."""


noop = app.task(nothing, name="noop")
silent = app.task(nothing, name="silent", ignore_result=True)


def drain(count: int) -> float:
    """Results are ignored and the queue itself is watched: nothing but the work is paid for."""
    server = redis.Redis.from_url(URL)
    server.flushdb()
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            silent.apply_async(producer=producer)
    say("queued")
    until(lambda: server.llen(QUEUE) < count, TIMEOUT_S, "the first task to be taken")
    started = time.perf_counter()
    until(lambda: not server.llen(QUEUE) and not server.hlen(UNACKED), TIMEOUT_S, "the last task to end")
    return time.perf_counter() - started


def latency(count: int, rate: float) -> list[float]:
    """One call each 1/rate s, its result awaited by Redis' publish and subscribe, as `get` does."""
    noop.delay().get(TIMEOUT_S)
    pause, found = threading.Event(), []
    due = time.perf_counter()
    for _ in range(count):
        due += 1 / rate
        pause.wait(max(0.0, due - time.perf_counter()))
        started = time.perf_counter()
        noop.delay().get(TIMEOUT_S)
        found.append(time.perf_counter() - started)
    return found


def say(text: str) -> None:
    """A line for the parent, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(words: list[str]) -> None:
    """See the module."""
    match words:
        case ["drain", count]:
            say(json.dumps(drain(int(count))))
        case ["latency", count, rate]:
            say(json.dumps(latency(int(count), float(rate))))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
