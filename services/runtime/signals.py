"""SIGTERM and SIGINT as one event that asks a process to drain."""

import contextlib
import os
import signal
import threading
from types import FrameType


def install() -> threading.Event:
    """Return the event that the first SIGTERM or SIGINT sets; call it from the main thread, once.

    Further signals change nothing: a drain that has begun is never cut short by an impatient second Ctrl-C
    (kill -9 remains for that, and loses nothing that was committed).
    """
    stop = threading.Event()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def wait_for_signal() -> None:
        os.read(read_end, 1)
        stop.set()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        # Event.set() takes a lock that the interrupted main thread may hold inside Event.wait(): a write
        # to a pipe cannot deadlock.
        with contextlib.suppress(BlockingIOError):
            os.write(write_end, b".")

    threading.Thread(target=wait_for_signal, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop
