"""Procrastinate's side, run by the interpreter of `.venv/bench`, which knows nothing of Millstream.

`prepare` makes its tables. `fill N STEPS` replaces what is queued by N pipelines, each a task that defers the
next one, STEPS in all. `work` works until it is stopped.
"""

import asyncio
import os
import sys

import procrastinate

URL = os.environ["BENCH_DATABASE_URL"]
CONCURRENCY = 20

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL, max_size=CONCURRENCY + 2))


async def step(left: int) -> None:
    """A step that does nothing but ask for the next one."""
    if left > 1:
        await task.defer_async(left=left - 1)


task = app.task(step, name="step")


async def fill(count: int, steps: int) -> None:
    """The queue holds these alone."""
    async with app.open_async():
        await app.connector.execute_query_async("TRUNCATE procrastinate_jobs CASCADE")
        await task.batch_defer_async(*({"left": steps} for _ in range(count)))


async def main(words: list[str]) -> None:
    """See the module."""
    match words:
        case ["prepare"]:
            async with app.open_async():
                await app.schema_manager.apply_schema_async()
        case ["fill", count, steps]:
            await fill(int(count), int(steps))
        case ["work"]:
            async with app.open_async():
                await app.run_worker_async(concurrency=CONCURRENCY, fetch_job_polling_interval=0.5)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
