"""`make soak`: many executions, downloads, idle connections and wide pipelines; does any process keep memory?

The parts run one after the other on one `millstream dev`, each bounded in time: what does not fit is said.
A part alone, with other numbers: `make soak SOAK="--parts downloads --downloads 500"`; `--data` keeps the
folder, so that a later run goes on with its log and tables.
"""

import argparse
import asyncio
import functools
import os
import resource
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from services.runtime.settings import PREFIX
from tests import local, stack
from tests.soak import load
from tests.soak.memory import MORE_MAX, Memory

PARTS = {
    "executions": load.executions,
    "downloads": load.downloads,
    "connections": load.connections,
    "wide": load.wide,
}
COUNTS = {"executions": 100_000, "downloads": 10_000, "connections": 2_000, "wide": 100}
SHARES = {"executions": 0.6, "downloads": 0.2, "connections": 0.1, "wide": 0.1}
WARM = 200
WARM_S = 60.0
# One key asks for as much as it can.
UNLIMITED = {f"{PREFIX}API__REQUESTS_PER_S": "0", f"{PREFIX}API__CONNECTIONS": "0"}


def main() -> int:
    """0 when no process held more than it may."""
    options = _options()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8_192)), hard))
    with ExitStack() as exits:
        os.environ[stack.FOLDER_VARIABLE] = exits.enter_context(tempfile.TemporaryDirectory())
        folder = options.data or Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        running = exits.enter_context(local.running(folder.resolve(), UNLIMITED))
        memory = Memory(running)
        _do(running, WARM_S, load.prepare)
        for name, count in (("executions", WARM), ("downloads", 10)):
            _do(running, WARM_S, functools.partial(PARTS[name], count=count))
        memory.idle = memory.now()
        for name in options.parts:
            count, seconds = getattr(options, name), options.minutes * 60 * SHARES[name]
            with memory.watched(name):
                said = _do(running, seconds, functools.partial(PARTS[name], count=count))
            _say(f"{name}: {said}")
        _say(f"\nRSS, idle after {WARM} executions, and at most in each part:\n\n{memory.table()}\n")
        excess = memory.excess()
    for line in excess:
        _say(f"soak: {line}; expected at most {MORE_MAX >> 20} MB")
    return 1 if excess else 0


def _do(running: local.Local, seconds: float, part: load.Part) -> str:
    return asyncio.run(load.run(running.state["api_url"], running.api_key, seconds, part))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=[*PARTS], help="default: all")
    parser.add_argument("--minutes", type=float, default=10, help="for all parts together; default 10")
    parser.add_argument("--data", type=Path, help="a data folder to keep; default: a fresh one, removed")
    for name, count in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=f"how many; default {count:,}")
    options = parser.parse_args()
    if unknown := {*options.parts} - {*PARTS}:
        parser.error(f"--parts: expected some of {', '.join(PARTS)}, found {', '.join(sorted(unknown))}")
    return options


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
