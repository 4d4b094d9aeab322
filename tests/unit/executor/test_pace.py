"""How many steps are out follows the lanes: all of them have work, and little waits before a newcomer."""

import heapq
from collections import deque

import pytest

from services.executor.core.pace import FIRST, LEAST, LONG_S, Pace

MOST = 256
JOBS = 4000


def worked_off(lanes: int, step_s: float, hop_s: float = 0.02) -> tuple[float, float]:
    """A backlog of steps on so many lanes: the share of their time that they worked, and the median wait of
    the later half. `hop_s` passes from the end of a step until the next one is before a lane."""
    pace, out, left = Pace(MOST), 0, JOBS
    arrivals: list[tuple[float, int]] = []
    free = [0.0] * lanes
    waits: deque[float] = deque()
    ends: list[float] = []
    now = 0.0
    while left or arrivals:
        while left and out < pace.now:
            heapq.heappush(arrivals, (now + hop_s, left))
            left, out = left - 1, out + 1
        came_at, _ = heapq.heappop(arrivals)
        began_at = max(came_at, heapq.heappop(free))
        heapq.heappush(free, began_at + step_s)
        heapq.heappush(ends, began_at + step_s)
        waits.append(began_at - came_at)
        pace.heard(began_at - came_at, wanted=left > 0)
        while ends and (ends[0] <= came_at or not arrivals):
            now = max(now, heapq.heappop(ends) + hop_s)
            out -= 1
    whole_s = max(free)
    later = sorted(list(waits)[JOBS // 2 :])
    return JOBS * step_s / (lanes * whole_s), later[len(later) // 2]


@pytest.mark.parametrize(
    ("lanes", "step_s"), [(2, 1.0), (8, 0.2), (96, 1.9), (4, 0.02)], ids=["few", "some", "many", "short"]
)
def test_lanes_have_work_and_a_newcomer_waits_little(lanes: int, step_s: float) -> None:
    busy, wait_s = worked_off(lanes, step_s)
    assert busy > 0.8
    assert wait_s <= LONG_S + step_s


def test_without_any_lane_for_long_it_sinks_to_the_least() -> None:
    pace = Pace(MOST)
    for _ in range(FIRST):
        pace.heard(5.0, wanted=True)
    assert pace.now == LEAST


def test_it_does_not_grow_while_nobody_is_kept_back_nor_beyond_the_most() -> None:
    pace = Pace(MOST)
    pace.heard(0.0, wanted=False)
    assert pace.now == FIRST
    for _ in range(2 * MOST):
        pace.heard(0.0, wanted=True)
    assert pace.now == MOST


def test_the_most_may_be_less_than_the_least() -> None:
    pace = Pace(1)
    pace.heard(5.0, wanted=True)
    pace.heard(0.0, wanted=True)
    assert pace.now == 1
