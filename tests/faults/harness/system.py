"""The system under test: `millstream dev` on one folder, started and killed many times."""

import os
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.cli.dev.child import readiness
from services.cli.dev.parts import PARTS
from tests import waiting
from tests.faults.harness.watch import Watch
from tests.local import Local

SERVICES = ("api", "manager", "worker", "notifier")
EVERYTHING = (*SERVICES, "kafka", "postgres")
START_ATTEMPTS = 4
HIT_TIMEOUT_S = 90.0
RETURN_TIMEOUT_S = 90.0
GONE_TIMEOUT_S = 30.0
TELLTALES = {"kafka": "kafka.Kafka", "postgres": "postgres"}


class System:
    """`local` is the running dev. Crash points are armed at `start` and kill once each."""

    def __init__(self, folder: Path, watch: Watch, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.watch = watch
        self.local: Local | None = None
        self.kills: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.failed_starts = 0
        self.outputs: list[str] = []
        self._environ = dict(environ or {})
        self._marks = 0
        self._armed: tuple[str, ...] = ()

    @property
    def state(self) -> dict[str, Any]:
        """What the supervisor recorded last."""
        assert self.local is not None
        return self.local.state

    def address(self) -> tuple[str, str]:
        """The API's URL and key as of now."""
        assert self.local is not None
        return self.state["api_url"], self.local.api_key

    def start(self, points: tuple[str, ...] = ()) -> None:
        """Start dev with these crash points and wait until it is ready.

        A point that kills a process while dev still starts ends dev, which says so; then it is started
        again, as a person would do it.
        """
        self._marks += 1
        self._armed = points
        armed = {"MILLSTREAM_CRASH__POINT": ",".join(points), "MILLSTREAM_CRASH__MARK": str(self._mark)}
        for _ in range(START_ATTEMPTS):
            self.local = Local(self.folder, {**self._environ, **(armed if points else {})})
            waiting.until(self._has_started, 180, "millstream dev to be ready or to end")
            if self.local.process.poll() is None:
                return
            self._ended()
            self.failed_starts += 1
        raise AssertionError(f"millstream dev did not start {START_ATTEMPTS} times:\n{self.outputs[-1]}")

    def missing_hits(self) -> set[str]:
        """Armed points that were not reached yet."""
        marked = self._mark.read_text(encoding="utf-8").split() if self._mark.exists() else []
        return {*self._armed} - {*marked}

    def await_hits(self) -> None:
        """Wait for every armed point; the check of the hits is the caller's, after the round."""
        try:
            waiting.until(lambda: not self.missing_hits(), HIT_TIMEOUT_S, "every crash point to be hit")
        except AssertionError:
            pass

    def count_hits(self) -> None:
        """Add this start's hits to the totals; once per start."""
        self.hits.update({*self._armed} - self.missing_hits())
        self._armed = ()

    def kill(self, name: str) -> None:
        """kill -9 of one process, as soon as it lives: a crash point may just have ended it."""
        waiting.until(lambda: self._kill_now(name), RETURN_TIMEOUT_S, f"{name} to live and be killed")
        self.kills[name] += 1

    def kill_everything(self) -> None:
        """kill -9 of the supervisor and all it started, at once.

        Each is stopped before any is killed, so that nobody restarts or cleans up after another; processes
        of the database come and go meanwhile.
        """
        assert self.local is not None
        self.count_hits()
        supervisor = psutil.Process(self.local.process.pid)
        supervisor.suspend()
        everything = [supervisor, *supervisor.children(recursive=True)]
        for send in (psutil.Process.suspend, psutil.Process.kill):
            for process in everything:
                with suppress(psutil.NoSuchProcess):
                    send(process)
        self.local.exit_code()
        psutil.wait_procs(everything, timeout=GONE_TIMEOUT_S)
        self.outputs.append(self.local.output)
        self.kills["all"] += 1

    def await_ready(self) -> None:
        """Wait until every service says that it is ready."""
        waiting.until(lambda: not self.not_ready(), RETURN_TIMEOUT_S, "every service to be ready")

    def not_ready(self) -> list[str]:
        """Names of services that do not answer 200 at /readyz."""
        ports = self.state["ports"]
        return [part.name for part in PARTS if readiness(ports[part.health]) is not None]

    def stop(self) -> None:
        """SIGTERM and drain; fails unless dev ends with 0."""
        if self.local is None or self.local.process.returncode is not None:
            return
        code = self.local.stop()
        self.outputs.append(self.local.output)
        assert code == 0, self.local.output[-2000:]

    def put_dataset(self, id: str, definition: Mapping[str, Any]) -> None:
        """Create a dataset by the public API; again and again, because a crash point may just end api."""

        def is_put() -> bool:
            url, key = self.address()
            try:
                answer = httpx.put(
                    f"{url}/v1/datasets/{id}",
                    json=dict(definition),
                    headers={"Authorization": f"Bearer {key}"},
                    timeout=15,
                    trust_env=False,
                )
            except httpx.HTTPError:
                return False
            assert answer.status_code in (200, 201, 503), answer.text
            return answer.status_code != 503

        waiting.until(is_put, RETURN_TIMEOUT_S, f"the dataset {id} to be stored")

    def _kill_now(self, name: str) -> bool:
        pid = self.state["pids"].get(name)
        if pid is None or not _is(pid, name):
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    @property
    def _mark(self) -> Path:
        return self.folder.parent / f"crash-marks-{self._marks}"

    def _has_started(self) -> bool:
        assert self.local is not None
        ended = self.local.process.poll() is not None
        return ended or (self.state.get("status") == "ready" and self.state["pid"] == self.local.process.pid)

    def _ended(self) -> None:
        assert self.local is not None
        self.local.exit_code()
        self.outputs.append(self.local.output)


def _is(pid: int, name: str) -> bool:
    """Whether this pid is still the process that state.json means: numbers are used again."""
    try:
        line = " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False
    return TELLTALES.get(name, "services.") in line
