"""The whole system as a person starts it: `millstream dev` in a process of its own."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from services.cli.dev.folder import Folder
from tests import stack, waiting

START_TIMEOUT_S = 150.0
STOP_TIMEOUT_S = 90.0


class Local:
    """A running `millstream dev`; `state` is its state.json (api_url, kafka_bootstrap, pids, ...)."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = Folder(folder)
        self.output = ""
        stack.remember(folder)
        own = {key: value for key, value in os.environ.items() if not key.startswith("MILLSTREAM_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "dev", "--data", str(folder)],
            env={**own, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def state(self) -> dict[str, Any]:
        """What the supervisor recorded last."""
        return self.folder.state()

    @property
    def api_key(self) -> str:
        """The key that `dev` made."""
        return Path(self.state["api_key_file"]).read_text(encoding="utf-8").strip()

    def await_ready(self) -> None:
        """Wait until everything is up. Fails with the output when the supervisor ends first."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.output
            return self.state.get("status") == "ready" and self.state["pid"] == self.process.pid

        waiting.until(is_ready, START_TIMEOUT_S, "millstream dev to be ready")

    def await_line(self, text: str, timeout_s: float) -> None:
        """Wait until the output has this text."""
        waiting.until(lambda: text in self.output, timeout_s, f"a line with {text!r}")

    def kill_everything(self) -> None:
        """kill -9 of the supervisor and all it started, all at once."""
        everything = [
            psutil.Process(self.process.pid),
            *psutil.Process(self.process.pid).children(recursive=True),
        ]
        for act in (psutil.Process.suspend, psutil.Process.kill):  # first all stand still: nobody tidies up
            for process in everything:
                with suppress(psutil.NoSuchProcess):  # the database's own come and go
                    act(process)
        self.exit_code()
        psutil.wait_procs(everything, timeout=STOP_TIMEOUT_S)

    def stop(self) -> int:
        """SIGTERM; the exit code after the drain."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for its end."""
        code = self.process.wait(STOP_TIMEOUT_S)
        self._reader.join(STOP_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line


@contextmanager
def running(folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[Local]:
    """`millstream dev` on `folder`, ready; stopped at the end (a test may have ended it before)."""
    local = Local(folder, environ or {})
    try:
        local.await_ready()
        yield local
    finally:
        if local.process.returncode is None:
            local.stop()
