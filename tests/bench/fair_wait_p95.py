"""How long a small tenant's jobs wait while 10,000 jobs of another do: against an idle system.

A job is one API step whose receiver answers after up to `BUSY_S`, so that calls do not march in step; its
wait ends when the receiver hears of it. The windows are all slots divided by 12: a single tenant fills three
quarters of them.
"""

import asyncio
import random
import statistics
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from msgspec.structs import replace

from services.contracts.commands import Definition, JobRequested
from services.runtime.kafka import Publisher
from tests.bench import noops
from tests.bench.figures import Figure, Sample
from tests.bench.system import System
from tests.waiting import until

BACKLOG = 10_000
SPARE = 1_500
"""Jobs that the workers end in a round, at most."""
FEW = 10
BUSY_S = 1.9
QUICK_S = 0.9
TIMES = 3
"""Few jobs come this often in a round."""
WORKERS, SLOTS, WINDOW = 2, 48, 8
BOUNDS = {f"MILLSTREAM_WORKER__CALLS{of}": str(SLOTS) for of in ("", "_PER_DESTINATION", "_PER_TENANT")}
TIMEOUT_S = 60.0

WAIT = Figure(
    name="fair_wait_p95",
    goal=2.0,
    better="lower",
    unit="ms",
    about=f"p95 wait of {FEW} jobs at once, {TIMES} times, while {BACKLOG} jobs of another tenant wait",
    peer="the same on an idle system",
)
FIGURES = (WAIT,)


class Receiver:
    """An HTTP server that answers each call after QUICK_S to BUSY_S, and remembers when it heard of it."""

    def __init__(self) -> None:
        self.heard: dict[str, float] = {}
        self._random = random.Random(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=1000)
        server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        self.port: int = server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop answering."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heard.setdefault(head.split()[1].decode().lstrip("/"), time.perf_counter())
                busy = self._loop.create_future()
                self._loop.call_later(self._random.uniform(QUICK_S, BUSY_S), busy.set_result, None)
                await busy
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """All rounds of the idle system first; then the backlog comes, and outlasts the others."""
    receiver = Receiver()
    processes = [
        *(system.service("worker", **BOUNDS) for _ in range(WORKERS)),
        system.service("manager", MILLSTREAM_DISPATCH__CALL_WINDOW=str(WINDOW)),
    ]
    publisher = Publisher(system.stack.kafka, "bench")
    publisher.warm_up(["job.requested"])
    wait_p95_ms(publisher, receiver)  # connections are open from here on
    idle = [wait_p95_ms(publisher, receiver) for _ in range(count)]
    many = jobs(receiver, BACKLOG + SPARE * count, "many")
    log = noops.Log(system)
    noops.publish(publisher, many)
    until(lambda: log.count() >= len(many), TIMEOUT_S, "the backlog to be accepted")
    for peer in idle:
        ours = wait_p95_ms(publisher, receiver)
        ended = sum(one.execution_id in receiver.heard for one in many)
        assert len(many) - ended >= BACKLOG, "the backlog was worked off too soon"
        yield {WAIT.name: Sample(ours, peer)}
    for process in processes:
        process.stop()
    log.close()
    publisher.close(5)
    receiver.close()


def wait_p95_ms(publisher: Publisher, receiver: Receiver) -> float:
    """Of a few jobs at once, some times."""
    waits: list[float] = []
    for _ in range(TIMES):
        few = jobs(receiver, FEW, "few")
        asked_at = time.perf_counter()
        noops.publish(publisher, few)
        ids = {one.execution_id for one in few}
        until(partial(_all_heard, receiver, ids), TIMEOUT_S, "all to start")
        waits += [1000 * (receiver.heard[one.execution_id] - asked_at) for one in few]
        threading.Event().wait(BUSY_S)  # they end: the next ones meet no others of their tenant
    return statistics.quantiles(waits, n=20)[18]


def _all_heard(receiver: Receiver, ids: set[str]) -> bool:
    return ids <= receiver.heard.keys()


def jobs(receiver: Receiver, count: int, tenant: str) -> list[JobRequested]:
    """Requests for one call each, which names its execution."""
    return [
        replace(
            one,
            tenant=tenant,
            job_type="pipeline",
            definition=Definition(kind="pipeline", id="call", revision=1, body=_body(receiver.port)),
            parameters={"values": {"id": one.execution_id}, "time_range": None},
        )
        for one in noops.requests(count)
    ]


def _body(port: int) -> dict[str, Any]:
    parameters = {"method": "POST", "url": f"http://127.0.0.1:{port}/${{id}}", "headers": {}, "data": {}}
    return {"steps": [{"step_name": "call", "step_type": "API", "parameters": parameters}]}
