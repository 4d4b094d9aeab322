"""Sends what is due: one loop that records results and claims deliveries, and a task for each attempt.

The loop's turn is one database transaction. While it runs, attempts end and their results wait for the next
turn, so results are written in batches as large as the load asks for. A slot is held from the claim to the
record: with the database away nothing new is sent, and what was sent is recorded when it is back.
"""

import asyncio
import functools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import prometheus_client
import psycopg2

from services.notifier.core.schedule import Delivered, GiveUp, Outcome, Result, RetryAt, after_attempt
from services.notifier.sender import Sender, Sent
from services.notifier.store import Claim, Recorded, Store, Turn
from services.runtime import database, entropy, telemetry

IDLE_S = 5.0
AWAY_S = 1.0
AWAY = "the database is away or slow"
FRESH_S = 60.0  # longer than all the timeouts of one turn
FAILING_MAX = 1000
DRAIN_S = 10.0

DELIVERIES = prometheus_client.Counter(
    "deliveries", "Attempts by what followed", ["result"], registry=telemetry.REGISTRY
)
LATENCY = prometheus_client.Histogram(
    "delivery_latency_seconds",
    "From the match to the receiver's 2xx",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 600, 3600, 86_400),
    registry=telemetry.REGISTRY,
)
IN_FLIGHT = prometheus_client.Gauge(
    "deliveries_in_flight", "Claimed and not yet recorded", registry=telemetry.REGISTRY
)

log = telemetry.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """Attempts at once: in all, to one destination, and to one whose last attempt failed.

    The last one keeps receivers that hang from filling the first; a tenant never fills it, whatever its
    receivers do (core/sharing.py). The total leaves room for as many idle connections below the usual limit
    of 1024 open files.
    """

    total: int = 256
    destination: int = 8
    failing: int = 2


class Dispatcher:
    """`run` in an event loop; `ready` may be asked from any thread."""

    def __init__(self, store: Store, sender: Sender, limits: Limits | None = None) -> None:
        self._store, self._sender = store, sender
        self._limits = limits or Limits()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._finished: list[Recorded] = []
        self._trouble: str | None = "not started"
        self._stopping = False
        self._turned_at = time.monotonic()

    def wake(self) -> None:
        """Something may be due; call it in the event loop's thread."""
        self._wake.set()

    def live(self) -> tuple[bool, str]:
        """The loop turns, if only to wait for the database."""
        age = time.monotonic() - self._turned_at
        return age < FRESH_S, f"last turn {age:.1f} s ago"

    def ready(self) -> tuple[bool, str]:
        """The last turn reached the database, and is fresh."""
        return (False, self._trouble) if self._trouble else self.live()

    def stop(self) -> None:
        """Ask `run` to drain and return; call it in the event loop's thread."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until `stop`; then give attempts in flight DRAIN_S to end, and record them.

        Raises what no pause can mend: a statement that the database refuses, a fault of ours.
        """
        executor = ThreadPoolExecutor(1, thread_name_prefix="dispatcher-store")
        try:
            while not self._stopping:
                turn = await self._turn(executor, self._limits.total)
                await self._wait(self._pause_s(turn))
            await self._drain(executor)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            executor.submit(self._store.close)
            executor.shutdown()

    async def _turn(self, executor: ThreadPoolExecutor, total: int) -> Turn | None:
        """Record, and claim up to `total` in flight. None: the database is away, the results stay."""
        self._wake.clear()
        results = tuple(self._finished)
        busy = self._busy - Counter(result.claim.destination for result in results)
        tenants = self._tenants - Counter(result.claim.tenant for result in results)
        call = functools.partial(
            self._store.turn,
            results,
            self._free(busy),
            self._limits.destination,
            tenants,
            total,
        )
        try:
            turn = await asyncio.get_running_loop().run_in_executor(executor, call)
        except psycopg2.Error as error:
            if database.classify(error) is not database.Failure.BACKPRESSURE:
                raise
            if self._trouble != AWAY:
                log.warning("paused", reason=AWAY, error=type(error).__name__)
            self._trouble = AWAY
            return None
        finally:
            self._turned_at = time.monotonic()
        self._trouble = None
        self._settle(results, turn)
        clock = entropy.RemoteClock(lambda: turn.now)
        for claim in turn.claims:
            self._start(claim, clock)
        IN_FLIGHT.set(self._busy.total())
        return turn

    def _free(self, busy: Counter[str]) -> dict[str, int]:
        """How many more each destination may be given, where that is not the common limit."""
        limit, failing = self._limits.destination, self._limits.failing
        limits = {name: failing if name in self._failing else limit for name in {*busy, *self._failing}}
        return {name: max(0, most - busy[name]) for name, most in limits.items()}

    def _settle(self, results: tuple[Recorded, ...], turn: Turn) -> None:
        """The results are written: their slots are free."""
        del self._finished[: len(results)]
        superseded = set(turn.superseded)
        for result in results:
            claim = result.claim
            self._busy -= Counter([claim.destination])
            self._tenants -= Counter([claim.tenant])
            if claim.delivery_id in superseded:
                log.warning("result_superseded", delivery_id=claim.delivery_id)
                continue
            _report(result, turn.now)

    def _start(self, claim: Claim, clock: entropy.RemoteClock) -> None:
        self._busy[claim.destination] += 1
        self._tenants[claim.tenant] += 1
        task = asyncio.create_task(self._attempt(claim, clock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, claim: Claim, clock: entropy.RemoteClock) -> None:
        started_at, started = clock.now(), time.monotonic()
        try:
            sent = await self._sender.attempt(claim, started_at)
        except Exception as error:  # a fault of ours in one delivery must not hold up the others
            log.exception("attempt_crashed", delivery_id=claim.delivery_id)
            sent = Sent(Result(error=f"internal error ({type(error).__name__})"))
        duration_ms = round((time.monotonic() - started) * 1000)
        outcome = after_attempt(claim.attempts + 1, sent.result, clock.now(), entropy.jitter())
        self._note_health(claim.destination, isinstance(outcome, Delivered))
        self._finished.append(_recorded(claim, started_at, duration_ms, sent, outcome))
        self._wake.set()

    def _note_health(self, destination: str, good: bool) -> None:
        if good:
            self._failing.discard(destination)
            return
        if len(self._failing) >= FAILING_MAX:
            self._failing.clear()  # a hint, not a fact: the next failures fill it again
        self._failing.add(destination)

    def _pause_s(self, turn: Turn | None) -> float:
        """How long nothing is to be done, unless somebody wakes us."""
        if turn is None:
            return AWAY_S
        if turn.next_due_at is None:
            return IDLE_S
        return min((turn.next_due_at - turn.now).total_seconds(), IDLE_S)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _drain(self, executor: ThreadPoolExecutor) -> None:
        """No claims any more. Attempts that do not end in time go out again when their lease has."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_S)
        if self._finished:
            await self._turn(executor, total=0)
        log.info("drained", unrecorded=self._busy.total())


def _recorded(claim: Claim, started_at: datetime, duration_ms: int, sent: Sent, outcome: Outcome) -> Recorded:
    due_at, reason = claim.lease, None
    match outcome:
        case Delivered():
            state = "delivered"
        case RetryAt():
            state, due_at, reason = "pending", outcome.at, outcome.reason
        case GiveUp():
            state, reason = "dead", outcome.reason
    status, response = sent.result.status, sent.response
    return Recorded(claim, started_at, duration_ms, status, reason, response, state, due_at)


def _report(result: Recorded, now: datetime) -> None:
    claim = result.claim
    if result.state == "delivered":
        DELIVERIES.labels("delivered").inc()
        LATENCY.observe((now - claim.created_at).total_seconds())
        return
    dead = result.state == "dead"
    DELIVERIES.labels("dead" if dead else "retry").inc()
    # The URL is not logged: its path or query may be a credential.
    log.warning(
        "delivery_dead" if dead else "delivery_retry",
        delivery_id=claim.delivery_id,
        destination=claim.destination,
        attempt=claim.attempts + 1,
        status=result.status,
        error=result.error,
        next_attempt_at=None if dead else result.next_attempt_at.isoformat(),
    )
