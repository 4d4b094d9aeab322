"""How a process lives: signals, crash points, health, logs."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg2
import pytest

from services.runtime import crash, database, health
from services.runtime.database import Failure
from services.runtime.settings import Crash


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_drain_and_a_second_one_changes_nothing(number: signal.Signals) -> None:
    code = """
import os, sys
from services.runtime import signals
stop = signals.install()
assert not stop.is_set()
for _ in range(3):
    os.kill(os.getpid(), int(sys.argv[1]))
assert stop.wait(10)
print("drained")
"""
    result = _run(code, str(int(number)))
    assert (result.returncode, result.stdout) == (0, "drained\n")


def test_a_thread_that_dies_asks_the_process_to_end() -> None:
    code = """
import threading
from services.runtime import threads
stop = threading.Event()
failed = threads.stop_on_crash(stop)
threading.Thread(target=lambda: None).start()
assert not stop.wait(0.1)
threading.Thread(target=lambda: 1 // 0, name="watch").start()
assert stop.wait(10) and failed.is_set()
"""
    result = _run(code)
    assert result.returncode == 0
    assert "thread_crashed" in result.stdout + result.stderr
    assert "watch" in result.stdout + result.stderr


CRASH = """
import sys
from pathlib import Path
from services.runtime import crash
from services.runtime.settings import Crash
crash.arm(Crash(point="here", mark=Path(sys.argv[1])))
crash.reach("there")
crash.reach("here")
print("went on")
"""


def test_a_crash_point_kills_once(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    first = _run(CRASH, str(mark))
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "")
    assert mark.read_text() == "here\n"
    second = _run(CRASH, str(mark))
    assert (second.returncode, second.stdout) == (0, "went on\n")
    assert mark.read_text() == "here\n"


def test_an_unarmed_point_does_nothing() -> None:
    crash.arm(Crash())
    crash.reach("here")


def test_health_answers_and_an_exception_is_not_good() -> None:
    def ready() -> tuple[bool, str]:
        raise ValueError("no database")

    server = health.HealthServer("127.0.0.1", 0, lambda: (True, "turning"), ready, lambda: ("kafka",))
    server.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            live, not_ready = client.get("/livez"), client.get("/readyz")
            assert live.status_code == 200
            assert live.json() == {"ok": True, "detail": "turning", "degraded": ["kafka"]}
            assert not_ready.status_code == 503
            assert not_ready.json()["detail"] == "ValueError: no database"
            assert b"process_cpu_seconds_total" in client.get("/metrics").content
            assert client.get("/other").status_code == 404
    finally:
        server.close()


def test_a_process_that_is_stuck_ends_itself() -> None:
    code = """
import threading
from services.runtime import health
health.STUCK_S = 1
health.HealthServer("127.0.0.1", 0, lambda: (False, "last turn 75 s ago"), lambda: (True, "")).start()
threading.Event().wait(30)
"""
    result = _run(code)
    assert result.returncode == 1
    assert "last turn 75 s ago" in result.stdout


def test_logs_are_json_lines_with_an_action() -> None:
    code = """
import logging
from services.runtime import telemetry
telemetry.configure("executor-worker")
telemetry.get_logger().info("step_claimed", step="export", attempt=1)
logging.getLogger("library").warning("careful %s", "now")
try:
    raise ValueError("broken")
except ValueError:
    telemetry.get_logger().exception("turn_failed")
"""
    lines = [json.loads(line) for line in _run(code).stdout.splitlines()]
    assert [line["action"] for line in lines] == ["step_claimed", "careful now", "turn_failed"]
    assert {line["service"] for line in lines} == {"executor-worker"}
    assert (lines[0]["step"], lines[0]["attempt"]) == ("export", 1)
    assert "ValueError: broken" in lines[2]["exception"]


class _Error(psycopg2.OperationalError):
    """An error as the driver raises it; its own attribute can be set by C code only."""

    def __init__(self, state: str | None) -> None:
        super().__init__("error")
        self._state = state

    @property
    def pgcode(self) -> str | None:  # type: ignore[override]
        return self._state


STATES = [
    (None, Failure.BACKPRESSURE),
    ("08006", Failure.BACKPRESSURE),
    ("53300", Failure.BACKPRESSURE),
    ("57P01", Failure.BACKPRESSURE),
    ("40001", Failure.BACKPRESSURE),
    ("40P01", Failure.BACKPRESSURE),
    ("25006", Failure.BACKPRESSURE),
    ("57014", Failure.BACKPRESSURE),
    ("55P03", Failure.BACKPRESSURE),
    ("22001", Failure.DATA),
    ("23505", Failure.DATA),
    ("54000", Failure.DATA),
    ("42P01", Failure.OTHER),
    ("42501", Failure.OTHER),
    ("40002", Failure.OTHER),
]


@pytest.mark.parametrize(("state", "failure"), STATES)
def test_database_errors_are_sorted_by_sqlstate(state: str | None, failure: Failure) -> None:
    assert database.classify(_Error(state)) is failure


def test_other_errors_are_other() -> None:
    assert database.classify(ValueError()) is Failure.OTHER
    assert database.classify(psycopg2.InterfaceError("connection already closed")) is Failure.BACKPRESSURE
    assert database.classify(psycopg2.ProgrammingError("no results to fetch")) is Failure.OTHER
