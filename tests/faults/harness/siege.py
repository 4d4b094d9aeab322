"""Pipelines while the manager and the workers are killed in turn: the campaign of `test_pipelines.py`.

One `millstream dev` with a second worker beside it; one thread asks for pipelines, one approves, rejects and
cancels what waits for that; the campaign kills until all have ended.
"""

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import cycle
from pathlib import Path

import httpx
import psutil
from confluent_kafka import KafkaException

from services.cli.dev.folder import free_port
from tests import waiting
from tests.faults.harness import orders
from tests.faults.harness.shop import Shop
from tests.faults.harness.system import RETURN_TIMEOUT_S, System
from tests.faults.harness.topic import Stories
from tests.faults.harness.watch import Watch
from tests.faults.harness.world import choose_ports
from tests.requesting import Requests, new_key

SETTLE_TIMEOUT_S = 600.0
ACCEPTED_WITHIN_S = 120.0
DECIDERS = 4
PAUSE_S = 0.2
VICTIMS = ("manager", "worker", "second worker")


class SecondWorker:
    """A worker with the settings of dev's own; who kills it starts the next one."""

    def __init__(self, system: System, log: Path) -> None:
        self._system, self._log = system, log
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def start(self) -> None:
        """Start it; `is_ready` tells more."""
        self._port = free_port(0, set())
        environ = psutil.Process(self._system.state["pids"]["worker"]).environ()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.executor", "worker"],
                env={**environ, "MILLSTREAM_HEALTH__PORT": str(self._port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def is_ready(self) -> bool:
        """Whether it says so."""
        try:
            url = f"http://127.0.0.1:{self._port}/readyz"
            return httpx.get(url, timeout=3, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(60)

    def stop(self) -> None:
        """SIGTERM, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)


@dataclass(slots=True)
class Siege:
    """Use `siege(...)`. `asked` is number -> execution id; `deaths` are the kills, as (victim, instant)."""

    system: System
    shop: Shop
    rng: random.Random
    second: SecondWorker
    asked: dict[int, str] = field(default_factory=dict)
    deaths: list[tuple[str, datetime]] = field(default_factory=list)
    answers_late: int = 0
    _numbers: dict[str, int] = field(default_factory=dict)

    def run(self, count: int, spacing_s: float, calm_s: tuple[float, float], kills_max: int) -> None:
        """Ask for `count` pipelines and kill, until all have ended and so often at most."""
        alice, bob = (self._caller(name) for name in ("alice", *orders.APPROVERS))
        alice.put(orders.PIPELINE, orders.definition(self.shop.url))
        over = threading.Event()
        with (
            closing(alice.client),
            closing(bob.client),
            ThreadPoolExecutor(2) as pool,
            Stories(self.system.state["kafka_bootstrap"]) as stories,
        ):
            asking = pool.submit(self._ask, alice, count, spacing_s)
            deciding = pool.submit(self._decide, alice, bob, over)
            try:
                victims = cycle(VICTIMS)
                while len(self.deaths) < kills_max and self._left(stories, count):
                    self._wait(self.rng.uniform(*calm_s))
                    self._kill(next(victims))
                asking.result(SETTLE_TIMEOUT_S)
                waiting.until(
                    lambda: deciding.done() or not self._left(stories, count),
                    SETTLE_TIMEOUT_S,
                    "every pipeline to end",
                )
            finally:
                over.set()
            deciding.result(ACCEPTED_WITHIN_S)

    def _caller(self, principal: str) -> Requests:
        return Requests.of(
            self.system.state["api_url"], new_key(self.system.state["database_url"], principal)
        )

    def _left(self, stories: Stories, count: int) -> int:
        """How many have not ended yet, those that are not asked for included."""
        try:
            stories.read_on()
        except KafkaException:
            return count
        known = {*self.asked.values()}
        return count - len(known) + len(stories.unfinished(known))

    def _ask(self, alice: Requests, count: int, spacing_s: float) -> None:
        rng = random.Random(self.rng.random())
        for number in range(1, count + 1):
            self._wait(rng.random() * 2 * spacing_s)
            body = {"pipeline": orders.PIPELINE, "values": {"n": number}}
            headers = {"Idempotency-Key": f"order-{number}"}

            def taken() -> str | None:
                answer = alice.client.post("/v1/requests", json=body, headers=headers)  # noqa: B023
                assert answer.status_code in (202, 503), answer.text
                return answer.json()["id"] if answer.status_code == 202 else None

            id = waiting.until(taken, ACCEPTED_WITHIN_S, f"order {number} to be accepted")
            self._numbers[id] = number
            self.asked[number] = id

    def _decide(self, alice: Requests, bob: Requests, over: threading.Event) -> None:
        """Say what there is to say, each word until it is answered; said twice, it hears 409."""
        cancelled: set[int] = set()
        with ThreadPoolExecutor(DECIDERS) as pool:
            while not over.wait(PAUSE_S):
                page = bob.client.get("/v1/approvals", params={"limit": 100})
                assert page.status_code == 200, page.text
                waits = [entry["request_id"] for entry in page.json()["items"]]
                known = [id for id in waits if id in self._numbers]
                list(pool.map(lambda id: self._approve(bob, id), known))
                stuck = [number for number in self.shop.stuck() - cancelled if number in self.asked]
                done = pool.map(lambda number: self._cancel(alice, number), stuck)
                cancelled |= {number for number, is_done in zip(stuck, done, strict=True) if is_done}

    def _approve(self, bob: Requests, id: str) -> None:
        number = self._numbers[id]
        what = "reject" if orders.is_rejected(number) else "approve"
        reason = {"reason": f"order {number} is one of those"} if what == "reject" else {}
        self._said(bob, id, f"steps/{orders.ASK}/{what}", reason)

    def _cancel(self, alice: Requests, number: int) -> bool:
        is_done = self._said(alice, self.asked[number], "cancel", {"reason": "stuck"})
        if is_done:
            self.shop.release(number)
        return is_done

    def _said(self, who: Requests, id: str, what: str, body: dict[str, str]) -> bool:
        answer = who.say(id, what, body, key=f"{id}-{what}")
        assert answer.status_code in (200, 202, 409, 503), answer.text
        self.answers_late += answer.status_code == 202
        return answer.status_code in (200, 409)

    def _kill(self, victim: str) -> None:
        """As soon as all live and are ready, so that every kill meets work."""
        self.system.await_ready()
        waiting.until(self.second.is_ready, RETURN_TIMEOUT_S, "the second worker to be ready")
        if victim == "second worker":
            self.second.kill()
            self.second.start()
        else:
            self.system.kill(victim)
        self.deaths.append((victim, self.shop.clock.now()))

    @staticmethod
    def _wait(seconds: float) -> None:
        """Let time pass: the instants are random, no fact is waited for."""
        threading.Event().wait(seconds)


@contextmanager
def siege(folder: Path, seed: int) -> Iterator[Siege]:
    """A running system with two workers; all of it ends with the block."""
    choose_ports(folder / "data")
    with ExitStack() as stack:
        shop = stack.enter_context(Shop())
        watch = stack.enter_context(Watch(folder / "data"))
        system = System(folder / "data", watch)
        stack.callback(system.stop)
        system.start()
        second = SecondWorker(system, folder / "second-worker.log")
        stack.callback(second.stop)
        second.start()
        yield Siege(system, shop, random.Random(seed), second)
