"""`millstream dev` as a child process: started, waited for, stopped."""

import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.demo.failure import Failed

READY_TIMEOUT_S = 900.0
"""The first start of a machine fetches the broker's jars; every later one is ready in seconds."""
STOP_TIMEOUT_S = 120.0
POLL_S = 0.05


@dataclass(frozen=True)
class Address:
    """What a running stack tells in its state.json."""

    api_url: str
    api_key: str
    source_url: str


class Stack:
    """One run of `millstream dev`. Use: start, stop."""

    def __init__(self, folder: Path, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        """`say` gets the lines that tell of a part that is up, restarted or stopped."""
        self._folder = folder
        self._environ = dict(environ)
        self._say = say
        self._last: deque[str] = deque(maxlen=20)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> Address:
        """Start and wait until every process is ready. Raises Failed."""
        command = [sys.executable, "-m", "services.cli", "dev", "--data", str(self._folder)]
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            env={**self._environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C on the terminal is ours to handle, in order
        )
        self._reader = threading.Thread(target=self._read, name="dev output", daemon=True)
        self._reader.start()
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (address := self._address()) is None:
            if self._process.poll() is not None:
                raise Failed(f"millstream dev: expected it to start, found:\n{self._ended()}")
            if time.monotonic() > deadline:
                raise Failed(f"millstream dev: expected it ready within {READY_TIMEOUT_S:g} s, found it not")
            time.sleep(POLL_S)
        return address

    def stop(self) -> None:
        """Drain and stop everything that was started. Raises Failed when that does not happen in time."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            found = f"process {process.pid} after {STOP_TIMEOUT_S:g} s"
            raise Failed(f"millstream dev: expected it to stop, found {found}") from None
        said = self._ended()
        if process.returncode != 0:
            raise Failed(f"millstream dev: expected exit code 0, found {process.returncode}:\n{said}")

    def _ended(self) -> str:
        """The last lines of a run that is over."""
        assert self._process is not None and self._process.stdout is not None and self._reader is not None
        self._reader.join()
        self._process.stdout.close()
        self._process = None
        return "\n".join(self._last)

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self._last.append(line.rstrip())
            # The others are for a person who stays: the API key, what to type next.
            if line.startswith(("  ok  ", "      ")):
                self._say(line.rstrip())

    def _address(self) -> Address | None:
        try:
            state: dict[str, Any] = json.loads((self._folder / "state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        if state.get("status") != "ready" or self._process is None or state.get("pid") != self._process.pid:
            return None  # a named folder may hold the state of an earlier run
        key = Path(state["api_key_file"]).read_text(encoding="utf-8").strip()
        return Address(state["api_url"], key, state["source_url"])
