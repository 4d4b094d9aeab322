"""How long the event loop is held: what one request computes, every other one waits for."""

import asyncio
import time

from prometheus_client import Histogram

from services.runtime import telemetry

LOOK_S = 0.02
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

LAG = Histogram(
    "event_loop_lag_seconds",
    "How much later than asked for the event loop turned, whatever it waited for",
    buckets=_BUCKETS,
    registry=telemetry.REGISTRY,
)
HELD = Histogram(
    "event_loop_held_seconds",
    "Processor time of the event loop's thread between two looks, 20 ms apart where nothing holds it longer",
    buckets=_BUCKETS,
    registry=telemetry.REGISTRY,
)


async def watch() -> None:
    """Look at the loop until it ends. Processor time tells what computes from a machine that is busy."""
    while True:
        began, used = time.monotonic(), time.thread_time()
        await asyncio.sleep(LOOK_S)
        LAG.observe(max(0.0, time.monotonic() - began - LOOK_S))
        HELD.observe(time.thread_time() - used)
