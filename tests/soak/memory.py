"""How much memory the processes of a running stack hold: idle, and at most during each part."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from tests.local import Local
from tests.waiting import joined

MIB = 1 << 20
MORE_MAX = 128 * MIB
SAMPLE_S = 0.5
JUDGED = ("api", "manager", "worker", "notifier")


@dataclass
class Memory:
    """Peaks by part, of each process by name; `kafka` and `postgres` are watched too, and not judged."""

    local: Local
    idle: Mapping[str, int] = field(default_factory=dict)
    peaks: dict[str, dict[str, int]] = field(default_factory=dict)

    def now(self) -> dict[str, int]:
        """RSS in bytes; a process that was started again counts as the new one."""
        found = {}
        for name, pid in self.local.state["pids"].items():
            try:
                found[name] = int(psutil.Process(pid).memory_info().rss)
            except psutil.NoSuchProcess:
                found[name] = 0
        return found

    @contextmanager
    def watched(self, part: str) -> Iterator[None]:
        """Keep the highest values seen in the block."""
        stop, most = threading.Event(), self.peaks.setdefault(part, {})

        def watch() -> None:
            while True:
                for name, used in self.now().items():
                    most[name] = max(most.get(name, 0), used)
                if stop.wait(SAMPLE_S):
                    return

        thread = threading.Thread(target=watch, name="memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            joined(thread)

    def excess(self) -> list[str]:
        """Where a process held more than it may."""
        return [
            f"{name} held {(used - self.idle[name]) / MIB:.0f} MB more than idle in {part}"
            for part, most in self.peaks.items()
            for name, used in most.items()
            if name in JUDGED and used > self.idle[name] + MORE_MAX
        ]

    def table(self) -> str:
        """As docs/faults.md shows it."""
        lines = [("process", "idle", *self.peaks), ("---",) * (len(self.peaks) + 2)]
        for name, idle in self.idle.items():
            most = [f"{peak.get(name, 0) / MIB:.0f} MB" for peak in self.peaks.values()]
            lines.append((name, f"{idle / MIB:.0f} MB", *most))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
