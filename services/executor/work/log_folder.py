"""How long step logs stay on this machine; the parts in the blob store are kept with their execution."""

import re
import threading
from datetime import datetime, timedelta
from pathlib import Path

from services.runtime import telemetry
from services.runtime.entropy import Clock

EVERY_S = 3600.0
_EXECUTION = re.compile(r"[0-9a-f]{40}")


log = telemetry.get_logger()


def start(folder: Path, kept: timedelta, clock: Clock, stop: threading.Event) -> threading.Thread:
    """Sweep now and every hour, on a thread of its own, until `stop`."""
    thread = threading.Thread(target=_run, args=(folder, kept, clock, stop), name="log-folder", daemon=True)
    thread.start()
    return thread


def _run(folder: Path, kept: timedelta, clock: Clock, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            if gone := sweep(folder, clock.now(), kept):
                log.info("step_logs_deleted", folder=str(folder), logs=gone)
        except OSError as error:
            log.warning("step_logs_undeletable", folder=str(folder), error=str(error))
        stop.wait(EVERY_S)


def sweep(folder: Path, now: datetime, kept: timedelta) -> int:
    """Delete the logs to which nothing was added for `kept`, and executions' folders that are empty then.

    Returns how many files went. Nothing else in `folder` is touched. Raises OSError.
    """
    before, gone = (now - kept).timestamp(), 0
    for execution in folder.iterdir() if folder.is_dir() else ():
        if not _EXECUTION.fullmatch(execution.name) or not execution.is_dir():
            continue
        logs = [*execution.glob("*.log")]
        old = [path for path in logs if path.stat().st_mtime < before]
        for path in old:
            path.unlink()
        gone += len(old)
        if len(old) == len(logs):
            _remove_empty(execution)
    return gone


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # another step has just begun a log there
        return
