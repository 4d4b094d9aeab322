"""A thread that sees every process of a `millstream dev` come, go and become ready, and when."""

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import httpx
import psutil

from services.cli.dev.folder import Folder
from services.runtime.entropy import LocalClock
from tests.waiting import joined

PERIOD_S = 0.1
AWAY = frozenset({"manager", "kafka", "postgres"})
"""Where one of these was away too, the recovery bound counts from its return."""


@dataclass(slots=True)
class Life:
    """One process; `died_at` is when it was first seen gone."""

    name: str
    pid: int
    since: datetime
    died_at: datetime | None = None


class Watch:
    """Use as a context manager around all starts of one data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder)
        self._clock = LocalClock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._alive: dict[str, Life] = {}
        self._manager_ready = False
        self.lives: list[Life] = []
        self.frozen: dict[int, datetime] = {}
        """pid -> instant, of processes that a test stopped (SIGSTOP): they are as good as dead."""
        self.returns: list[datetime] = []
        """When something of AWAY was there again: the manager ready, a server answering."""

    def deaths(self, name: str) -> dict[int, datetime]:
        """pid -> instant, of the processes of this name that died."""
        return {life.pid: life.died_at for life in self.lives if life.name == name and life.died_at}

    def recovery_start(self, died_at: datetime, again_at: datetime) -> datetime:
        """From when the bound counts for work that was lost at `died_at` and ran again at `again_at`."""
        return max([died_at, *(at for at in self.returns if died_at < at <= again_at)])

    def died_since(self, instant: datetime) -> list[str]:
        """The names of all that died."""
        return [life.name for life in self.lives if life.died_at and life.died_at >= instant]

    def now(self) -> datetime:
        """The instant that `lives` are compared with."""
        return self._clock.now()

    def _run(self) -> None:
        with httpx.Client(timeout=1.0, trust_env=False) as client:
            while not self._stop.wait(PERIOD_S):
                self._note_deaths()
                state = self._folder.state()
                if state.get("status") == "ready" or state.get("status") == "starting":
                    self._note_births(state.get("pids", {}))
                    self._note_ready(client, state.get("ports", {}).get("manager"))

    def _note_deaths(self) -> None:
        for name, life in [*self._alive.items()]:
            if not is_alive(life.pid):
                life.died_at = self.now()
                del self._alive[name]

    def _note_births(self, pids: dict[str, int | None]) -> None:
        for name, pid in pids.items():
            known = self._alive.get(name)
            if pid is None or (known and known.pid == pid) or not is_alive(pid):
                continue
            life = Life(name, pid, self.now())
            self._alive[name] = life
            self.lives.append(life)
            if name in AWAY - {"manager"}:
                self.returns.append(life.since)

    def _note_ready(self, client: httpx.Client, port: int | None) -> None:
        try:
            is_ready = client.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except (httpx.HTTPError, httpx.InvalidURL):
            is_ready = False
        if is_ready and not self._manager_ready:
            self.returns.append(self.now())
        self._manager_ready = is_ready

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        joined(self._thread)


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie has died."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def seconds(span: timedelta) -> float:
    """Rounded for tables."""
    return round(span.total_seconds(), 1)
