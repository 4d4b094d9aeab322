"""Threads that live as long as their process."""

import threading

from services.runtime import telemetry

log = telemetry.get_logger()


def stop_on_crash(stop: threading.Event) -> threading.Event:
    """From now on a thread that dies sets `stop` and the event that is returned: the process ends with an
    error, and its supervisor starts it anew. Without that thread it would be alive by half."""
    failed = threading.Event()

    def on_crash(crashed: threading.ExceptHookArgs) -> None:
        name = crashed.thread.name if crashed.thread else "unknown"
        log.error("thread_crashed", thread=name, exc_info=crashed.exc_value)
        failed.set()
        stop.set()

    threading.excepthook = on_crash
    return failed
