"""A server that stands still for a while (SIGSTOP) and goes on: who finds back, and how soon."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal

import httpx
import psutil

from services.cli.dev.child import degraded, readiness
from services.cli.dev.parts import PARTS
from tests import waiting
from tests.faults.harness.history import Asked
from tests.faults.harness.world import World, world

Server = Literal["kafka", "postgres"]
RECOVERED_WITHIN_S = 30.0
GIVEN_UP_AFTER_S = 180.0
ASKED_DURING = 3
CALM_S = (1.0, 8.0)
ROWS = 1_000
INDEXES = 12


@dataclass(frozen=True, slots=True)
class Freeze:
    """One of them. `told` are the processes that said so while it lasted; `rejoins` are clients replaced."""

    number: int
    recovered_s: float
    told: tuple[str, ...]
    rejoins: int
    died: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Campaign:
    """Freezes of one server under one group protocol. Use `campaign(...)`."""

    made: World
    server: Server
    protocol: str
    freeze_s: float
    freezes: list[Freeze] = field(default_factory=list)

    def freeze(self) -> Freeze:
        """One more, after everything has recovered from the former."""
        self.freezes.append(_freeze(self.made, len(self.freezes) + 1, self.server, self.freeze_s))
        return self.freezes[-1]

    def faults(self) -> list[str]:
        """What is wrong with all that was asked for so far."""
        self.made.settle()
        return self.made.check().faults

    def table(self) -> str:
        """As Markdown."""
        head = (
            "| server | protocol | freezes | s each | recovered p50 / p99 / max"
            " | not ready or degraded meanwhile | clients replaced | processes ended |"
        )
        seconds = sorted(freeze.recovered_s for freeze in self.freezes)
        worst = seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
        told = {name: sum(name in freeze.told for freeze in self.freezes) for name in names()}
        died = [name for freeze in self.freezes for name in freeze.died]
        cells = (
            *(self.server, self.protocol, len(seconds), f"{self.freeze_s:g}"),
            f"{seconds[len(seconds) // 2]:.1f} / {worst:.1f} / {seconds[-1]:.1f} s",
            ", ".join(f"{name} {count}" for name, count in told.items()),
            *(sum(freeze.rejoins for freeze in self.freezes), ", ".join(died) or 0),
        )
        return "\n".join([head, "|" + "---|" * 8, "| " + " | ".join(str(cell) for cell in cells) + " |"])


def names() -> Sequence[str]:
    """The processes that have an opinion."""
    return [part.name for part in PARTS]


@contextmanager
def campaign(folder: Path, server: Server, protocol: str, freeze_s: float, seed: int) -> Iterator[Campaign]:
    """The four processes under dev, on servers of dev's own."""
    with world(folder, seed, {"MILLSTREAM_KAFKA__GROUP_PROTOCOL": protocol}) as made:
        made.system.start()
        made.prepare(ROWS)
        yield Campaign(made, server, protocol, freeze_s)


def _freeze(made: World, number: int, server: Server, freeze_s: float) -> Freeze:
    made.submit_many(2, 0.1)
    made.wait(made.rng.uniform(*CALM_S))
    began, rejoins = made.watch.now(), _rejoins(made)
    told: set[str] = set()
    with ThreadPoolExecutor(ASKED_DURING) as asking:
        with frozen(made.system.state["pids"][server]):
            over = made.watch.now() + timedelta(seconds=freeze_s)
            for _ in range(ASKED_DURING):  # without a database each waits for its 503
                asking.submit(made.history.submit, patient=False)
            while made.watch.now() < over:
                told |= _troubled(made)
                made.wait(0.2)
        thawed = made.watch.now()
    made.watch.returns.append(thawed)
    asked = made.history.submit(body={"jobType": "noop"})
    wanted = [
        asked,
        *(one for one in made.history.accepted().values() if one.number > asked.number - ASKED_DURING),
    ]
    with suppress(AssertionError):  # the table and the bound say so
        waiting.until(lambda: _has_recovered(made, wanted), GIVEN_UP_AFTER_S, "everything to go on")
    recovered_s = (made.watch.now() - thawed).total_seconds()
    died = tuple(made.watch.died_since(began))
    return Freeze(number, recovered_s, tuple(sorted(told)), max(0, _rejoins(made) - rejoins), died)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process and all its children stand still."""
    parent = psutil.Process(pid)
    family = [parent, *parent.children(recursive=True)]
    try:
        for process in family:
            process.suspend()
        yield
    finally:
        for process in reversed(family):
            with suppress(psutil.NoSuchProcess):
                process.resume()


def _troubled(made: World) -> set[str]:
    """Who says that something is away."""
    ports = made.system.state["ports"]
    found = {part.name: ports[part.health] for part in PARTS}
    return {name for name, port in found.items() if readiness(port) is not None or degraded(port)}


def _has_recovered(made: World, wanted: Sequence[Asked]) -> bool:
    """All say that they are well, the manager has every index, and what was asked for has come to its end: in
    the answers of the API and at the receiver of its callbacks."""
    if _troubled(made) or _metric(made, "manager", "loop_indexes_owned ") != INDEXES:
        return False
    called = {call.path for call in made.receiver.calls}
    return all(_is_completed(made, one) and all(path in called for path in one.listeners) for one in wanted)


def _is_completed(made: World, asked: Asked) -> bool:
    url, key = made.system.address()
    path = f"{url}/v1/executions/{asked.execution_id}"
    try:
        answer = httpx.get(path, headers={"Authorization": f"Bearer {key}"}, timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.is_success and answer.json()["status"] not in ("pending", "running", "waiting")


def _rejoins(made: World) -> int:
    loops = ("api-health", "manager", "notifier")
    logs = Path(made.system.state["log_folder"]) / "worker.log"
    workers = logs.read_text(errors="replace").count('"action": "rejoins"')
    return workers + round(sum(_metric(made, name, "loop_rejoins_total ") for name in loops))


def _metric(made: World, port: str, name: str) -> float:
    url = f"http://127.0.0.1:{made.system.state['ports'][port]}/metrics"
    try:
        text = httpx.get(url, timeout=5, trust_env=False).text
    except httpx.HTTPError:
        return 0.0
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))
