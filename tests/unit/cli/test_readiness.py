"""A child is ready by its own word."""

import sys
from pathlib import Path

from services.cli.dev.child import Child
from services.runtime.health import HealthServer


def test_a_stranger_on_its_port_does_not_speak_for_a_child(tmp_path: Path) -> None:
    stranger = HealthServer("127.0.0.1", 0, lambda: (True, ""), lambda: (True, ""))
    stranger.start()
    child = Child(
        "api",
        [sys.executable, "-c", "import threading; threading.Event().wait(60)"],
        {},
        tmp_path / "log",
        stranger.port,
        stranger.port,
    )
    assert child.readiness() == "it is not running"
    child.start()
    try:
        assert child.readiness() == f"another process answers on port {stranger.port}"
    finally:
        child.ask_to_stop()
        child.wait(10)
        stranger.close()
