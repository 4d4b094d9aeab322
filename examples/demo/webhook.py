"""The receiver as a process of its own, and the check of what it received."""

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from examples.demo.failure import Failed

START_TIMEOUT_S = 30.0
WAIT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.02


@dataclass(frozen=True)
class Received:
    """A request as the receiver wrote it down."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Expected:
    """What the webhook must tell."""

    execution_id: str
    files: int
    rows: int


class Receiver:
    """`python -m examples.receiver`. Use: start, first, stop."""

    def __init__(self, record: Path, say: Callable[[str], None]) -> None:
        self._record = record
        self._say = say
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> str:
        """Start it; the URL for the callback. Raises Failed."""
        command = [sys.executable, "-m", "examples.receiver", "--record", str(self._record)]
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C on the terminal is ours to handle, in order
        )
        assert self._process.stdout is not None
        url = self._process.stdout.readline().strip()
        if not url.startswith("http"):
            raise Failed("examples.receiver: expected it to start and print its address, found that it ended")
        self._reader = threading.Thread(target=self._read, name="receiver output", daemon=True)
        self._reader.start()
        return f"{url}/millstream"

    def first(self) -> Received:
        """Wait for the first request. Raises Failed after WAIT_S."""
        deadline = time.monotonic() + WAIT_S
        while not (requests := received(self._record)):
            if time.monotonic() > deadline:
                raise Failed(f"webhook: expected one within {WAIT_S:g} s of the end, found none")
            time.sleep(POLL_S)
        return requests[0]

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None or process.stdout is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join()
        process.stdout.close()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self._say(f"receiver: {line.rstrip()}")


def received(record: Path) -> list[Received]:
    """Everything in the record; a line that is still being written is not there yet."""
    if not record.exists():
        return []
    whole = record.read_text(encoding="utf-8").rpartition("\n")[0]
    entries = [json.loads(line) for line in whole.splitlines()]
    return [Received(entry["headers"], base64.b64decode(entry["body"])) for entry in entries]


def verify(request: Received, secret: str, expected: Expected) -> dict[str, Any]:
    """The event in a request, its signature verified on the bytes as they came. Raises Failed."""
    try:
        event = Webhook(secret).verify(request.body, dict(request.headers))
    except (WebhookVerificationError, ValueError) as error:  # ValueError: what is no UTF-8, JSON or base64
        raise Failed(f"webhook: expected a signature that fits the received bytes, found: {error}") from None
    data = event["data"]
    found = (event["type"], event["subject"], data.get("files"), data.get("rows"))
    wanted = ("execution.completed", expected.execution_id, expected.files, expected.rows)
    if found != wanted:
        raise Failed(f"webhook: expected {wanted}, found {found}")
    return dict(event)
