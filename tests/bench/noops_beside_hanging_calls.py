"""How long NOOP steps of one tenant take while calls of others hang: against an idle system.

HANGING calls of TENANTS tenants wait for receivers that never answer: so many that all of them run at once.
"""

import socket
import statistics
import time
from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from services.contracts.commands import Definition, JobRequested
from services.runtime.kafka import Publisher
from tests.bench import noops
from tests.bench.figures import Figure, Sample
from tests.bench.system import System
from tests.waiting import until

HANGING, TENANTS = 100, 5
JOBS = 100
TIMEOUT_S = 60.0
EVENTS_OF_A_CALL = 3
"""execution.accepted, execution.started, step.running."""

TIME = Figure(
    name="noops_beside_hanging_calls",
    goal=2.0,
    better="lower",
    unit="ms",
    about=f"p95 from request to end of {JOBS} NOOP jobs one at a time, while {HANGING} calls of {TENANTS}"
    " other tenants hang",
    peer="the same on an idle system",
)
FIGURES = (TIME,)


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """All rounds of the idle system first; then the calls come, and hang until the end."""
    processes = [system.service("worker"), system.service("manager")]
    publisher = Publisher(system.stack.kafka, "bench")
    publisher.warm_up(["job.requested"])
    p95_ms(system, publisher)
    idle = [p95_ms(system, publisher) for _ in range(count)]
    with socket.create_server(("0.0.0.0", 0), backlog=HANGING) as silent:
        log = noops.Log(system)
        noops.publish(publisher, calls(silent.getsockname()[1]))
        until(lambda: log.count() >= HANGING * EVENTS_OF_A_CALL, TIMEOUT_S, "all calls to be held")
        log.close()
        for peer in idle:
            yield {TIME.name: Sample(p95_ms(system, publisher), peer)}
    for process in processes:
        process.stop()
    publisher.close(5)


def p95_ms(system: System, publisher: Publisher) -> float:
    """Of jobs that come one after the other."""
    log, times, ended = noops.Log(system), [], 0
    for job in noops.requests(JOBS):
        ended += noops.EVENTS_PER_JOB
        asked_at = time.perf_counter()
        noops.publish(publisher, [job])
        while log.count() < ended:
            assert time.perf_counter() - asked_at < TIMEOUT_S, "a NOOP step never ended"
        times.append(1000 * (time.perf_counter() - asked_at))
    log.close()
    return statistics.quantiles(times, n=20)[18]


def calls(port: int) -> list[JobRequested]:
    """One call each, of the tenants in turn, spread over eight addresses of one silent receiver."""
    return [
        replace(
            one,
            tenant=f"hanging-{number % TENANTS}",
            job_type="pipeline",
            definition=Definition(kind="pipeline", id="call", revision=1, body=_body(port, number % 8 + 1)),
            parameters={"values": {}, "time_range": None},
        )
        for number, one in enumerate(noops.requests(HANGING))
    ]


def _body(port: int, host: int) -> dict[str, Any]:
    parameters = {
        "method": "POST",
        "url": f"http://127.0.0.{host}:{port}/",
        "headers": {},
        "data": {},
        "timeout_s": 600,
    }
    return {"steps": [{"step_name": "call", "step_type": "API", "parameters": parameters}]}
