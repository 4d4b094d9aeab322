"""Crash points: named places in the code at which a fault test kills the process for real.

`reach("claim.published")` does nothing unless `arm` was given that name (MILLSTREAM_CRASH__POINT, one name or
several with commas between). Then the process appends the name to the mark file (MILLSTREAM_CRASH__MARK) and
sends itself SIGKILL. A process that finds its point in the mark file goes on: each point kills once, however
often the supervisor restarts.
"""

import os
import signal
from pathlib import Path

from services.runtime.settings import Crash

_points: frozenset[str] = frozenset()
_mark: Path | None = None


def arm(settings: Crash) -> None:
    """Set the points for this process; `__main__` calls it once, with settings that are usually empty."""
    global _points, _mark
    _points, _mark = frozenset((settings.point or "").split(",")), settings.mark


def reach(point: str) -> None:
    """Say that the code has come to `point`; does not return when the point is armed and still unmarked."""
    if point not in _points or _mark is None:
        return
    descriptor = os.open(_mark, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        seen = os.pread(descriptor, 1 << 20, 0).decode().split("\n")
        if point in seen:
            return
        os.write(descriptor, f"{point}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)
