"""`python -m examples.demo [--data FOLDER]`; `make demo` runs it without."""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from examples.demo import story

INTERRUPTED = 130


def main() -> int:
    """The exit code: 0 when everything was as it must be, 1 when not, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=story.__doc__)
    parser.add_argument("--data", type=Path, help="a data folder to keep; default: a fresh one, removed")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # named, since a shell's background jobs ignore SIGINT
        signal.signal(number, _interrupt)
    try:
        return story.run(options.data, os.environ)
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started is stopped", file=sys.stderr)
        return INTERRUPTED


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Let everything that was started be stopped on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
