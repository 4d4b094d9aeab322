"""DBOS' side, run by the interpreter of `.venv/bench`, which knows nothing of Millstream.

`prepare` makes its tables. `fill N STEPS` replaces what is queued by N workflows of STEPS steps each. `work`
works until it is stopped.
"""

import os
import signal
import sys

import psycopg
from dbos import DBOS, DBOSClient, DBOSConfig

URL = os.environ["BENCH_DATABASE_URL"]
QUEUE = "bench"
CONCURRENCY = 20
POLLED_S = 0.1

config: DBOSConfig = {
    "name": "bench",
    "system_database_url": URL,
    "application_version": "bench",
    "executor_id": str(os.getpid()),
    "log_level": "WARNING",
    "sys_db_pool_size": CONCURRENCY,
}


def nothing() -> None:
    """What NOOP does."""


def pipeline(steps: int) -> None:
    """Steps one after the other, each recorded."""
    for _ in range(steps):
        step()


step = DBOS.step(name="step")(nothing)
workflow = DBOS.workflow(name="pipeline")(pipeline)


def fill(count: int, steps: int) -> None:
    """The queue holds these alone."""
    with psycopg.connect(URL) as connection:
        connection.execute("TRUNCATE dbos.workflow_status CASCADE")
    client = DBOSClient(system_database_url=URL)
    for _ in range(count):
        client.enqueue({"workflow_name": "pipeline", "queue_name": QUEUE}, steps)
    client.destroy()


def main(words: list[str]) -> None:
    """See the module."""
    match words:
        case ["prepare"]:
            DBOS(config=config)
            DBOS.launch()
            DBOS.register_queue(QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLLED_S)
            DBOS.destroy()
        case ["fill", count, steps]:
            fill(int(count), int(steps))
        case ["work"]:
            DBOS(config=config)
            DBOS.launch()
            signal.sigwait({signal.SIGTERM})
            DBOS.destroy()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
