"""Step logs: per take a file on this machine and parts in the blob store, which readers elsewhere follow.

The file is `<folder>/<execution>/<step>.log` (S3 3.28), to which every attempt adds; the parts are those of
contracts/places.py, one a second or 64 KiB. A log comes into being with its first line. It is for the people
who asked for the work: no secret of ours is in it, and it has an end.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from services.contracts import places
from services.contracts.secret_names import PATTERN
from services.executor.work.take import Take
from services.runtime import telemetry
from services.runtime.blobs import BlobExists, Blobs, BlobsUnavailable
from services.runtime.entropy import Clock

PART_BYTES = 64 * 1024
SHIP_S = 1.0
LINE_CHARS_MAX = 4_000
LOG_BYTES_MAX = 8 << 20
LATE_S = 600.0
LATE_MAX = 100
SECRET_CHARS_MIN = 4
"""Anything shorter would be found everywhere."""
_SAFE = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")
_NAME_BYTES_MAX = 200
_USER_INFO = re.compile(r"://[^/\s@]+@")
_NAMED = re.compile(rf"""(?i)((?<!\w)\w*{PATTERN}\w*["']?\s*[=:]\s*["']?(?:bearer\s+)?)[^\s,;"'}}]+""")
_BOUND = frozenset({"execution", "step", "attempt", "take"})
HIDDEN = "***"

log = telemetry.get_logger()


class Logs:
    """Where step logs go; safe from any thread."""

    def __init__(self, folder: Path, blobs: Blobs, secrets: Iterable[str], clock: Clock) -> None:
        """`secrets` are URLs whose passwords must not show."""
        self._folder = folder
        self._blobs = blobs
        self._clock = clock
        hidden = {text for url in secrets for text in _parts(url) if len(text) >= SECRET_CHARS_MIN}
        self._secrets = sorted(hidden, key=len, reverse=True)
        self._kept: dict[StepLog, float | None] = {}
        """What is to be shipped, and since when it is late: closed while the store could not take it."""
        self._changed = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._ship, name="logs", daemon=True).start()

    def of(self, take: Take) -> "StepLog":
        """The log of a take, which has no line yet."""
        return StepLog(self, take)

    def line(self, level: str, event: EventDict) -> bytes:
        """One line of text: instant, level, what happened and its particulars."""
        shown = {key: value for key, value in event.items() if key not in _BOUND and key != "event"}
        if shown.pop("exc_info", None) and (kind := sys.exc_info()[0]) is not None:
            shown["error"] = kind.__name__  # its text, and the stack, are for the log of the process
        text = " ".join([str(event.get("event", "")), *(f"{key}={value}" for key, value in shown.items())])
        at = self._clock.now().isoformat(timespec="milliseconds")
        return f"{at} {level} {self.redacted(text)[:LINE_CHARS_MAX]}\n".encode("utf-8", "replace")

    def redacted(self, text: str) -> str:
        """On one line, without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        text = _USER_INFO.sub(f"://{HIDDEN}@", text)
        return _NAMED.sub(rf"\g<1>{HIDDEN}", text).replace("\r", " ").replace("\n", " ")

    def keep(self, opened: "StepLog") -> None:
        """Ship this log's parts from now on."""
        with self._lock:
            self._kept[opened] = None

    def close(self, closed: "StepLog") -> None:
        """Ship the rest: now, or as soon as the store can take it, for LATE_S and LATE_MAX logs at most."""
        if self._shipped(closed):
            self._drop(closed)
            return
        with self._lock:
            self._kept[closed] = time.monotonic()
            late = [kept for kept, since in self._kept.items() if since is not None]
        for given_up in late[:-LATE_MAX]:
            self._give_up(given_up)

    def _drop(self, closed: "StepLog") -> None:
        with self._lock:
            self._kept.pop(closed, None)

    def _give_up(self, closed: "StepLog") -> None:
        log.error("step_log_cut_off", execution=closed.execution_id, expected="a blob store that takes it")
        self._drop(closed)

    def hurry(self) -> None:
        """A part is full."""
        self._changed.set()

    def append(self, take: Take, line: bytes) -> None:
        """Add to the file on this machine; the blob store has the log even where this fails."""
        request = take.request
        try:
            folder = self._folder / request.execution_id
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            descriptor = os.open(folder / f"{request.step}.log", flags, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("step_log_unwritable", execution=request.execution_id, error=str(error))

    def put(self, take: Take, number: int, content: bytes) -> bool:
        """Store one part; False: the store cannot take it now."""
        request = take.request
        folder = places.take_folder(
            request.tenant, request.execution_id, request.step, request.attempt_id, take.take_id
        )
        try:
            with self._blobs.create(places.log_part(folder, number)) as writer:
                writer.write(content)
                writer.finish()
        except BlobExists:
            return True  # it was stored, only we were not told
        except BlobsUnavailable as error:
            log.warning("step_log_unshipped", execution=request.execution_id, error=str(error))
            return False
        return True

    def _ship(self) -> None:
        while True:
            self._changed.wait(SHIP_S)
            self._changed.clear()
            with self._lock:
                logs = [*self._kept.items()]
            for kept, late_since in logs:
                shipped = self._shipped(kept)
                if late_since is None:
                    continue
                if shipped:
                    self._drop(kept)
                elif time.monotonic() - late_since > LATE_S:
                    self._give_up(kept)

    def _shipped(self, kept: "StepLog") -> bool:
        try:
            return kept.ship()
        except Exception:  # one log must not end all others, nor a lane
            log.exception("step_log_failed")
            return False


class StepLog:
    """The log of one take."""

    def __init__(self, logs: Logs, take: Take) -> None:
        self._logs = logs
        self._take = take
        self._lock = threading.Lock()
        self._shipping = threading.Lock()
        self._pending = bytearray()
        self._written = 0
        self._parts = 0

    @property
    def execution_id(self) -> str:
        """Whose log it is."""
        return self._take.request.execution_id

    @property
    def begun(self) -> bool:
        """Whether it has a line."""
        return self._written > 0

    def logger(self) -> FilteringBoundLogger:
        """Writes to this log and to that of the process; made when it is first asked for something."""
        logger: Any = _Later(self._logger)
        return cast(FilteringBoundLogger, logger)

    def _logger(self) -> FilteringBoundLogger:
        request = self._take.request
        processors = [self._also, *structlog.get_config()["processors"]]
        logger: FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=processors,
            execution=request.execution_id,
            step=request.step,
            attempt=request.attempt,
            take=self._take.take_id,
        )
        return logger

    def write(self, line: bytes) -> None:
        """Add a line, up to LOG_BYTES_MAX of them all."""
        with self._lock:
            if not self._written:
                if not _named_safely(self._take):
                    return
                self._logs.keep(self)
            if self._written >= LOG_BYTES_MAX:
                return
            self._written += len(line)
            if self._written >= LOG_BYTES_MAX:
                line = f"the log ends here: it has reached {LOG_BYTES_MAX} bytes\n".encode()
            self._pending += line
            full = len(self._pending) >= PART_BYTES
            self._logs.append(self._take, line)
        if full:
            self._logs.hurry()

    def ship(self) -> bool:
        """Store what is pending as parts; False: the store cannot take it now."""
        with self._shipping:
            while True:
                with self._lock:
                    content = bytes(self._pending[:PART_BYTES])
                if not content:
                    return True
                if not self._logs.put(self._take, self._parts + 1, content):
                    return False
                self._parts += 1
                with self._lock:
                    del self._pending[: len(content)]

    def close(self) -> None:
        """Ship the rest, so that whoever hears of the end of the step can read its whole log. While the store
        is away, that comes later: the end of a step does not wait for its log."""
        if self.begun:
            self._logs.close(self)

    def _also(self, _logger: Any, method: str, event: EventDict) -> EventDict:
        self.write(self._logs.line(method, event))
        return event


class _Later:
    """A logger that most steps never use."""

    __slots__ = ("_made",)

    def __init__(self, made: Callable[[], FilteringBoundLogger]) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made(), name)


def _named_safely(take: Take) -> bool:
    """Names from a record become names of files; `Make API Call` is one (S3 3.28)."""
    names = (take.request.execution_id, take.request.step)
    return all(_SAFE.fullmatch(name) and len(name.encode()) <= _NAME_BYTES_MAX for name in names)


def _parts(url: str) -> Iterable[str]:
    password = urlsplit(url).password
    return [url, *((password, unquote(password)) if password else ())]
