"""How many steps are out follows the lanes: all of them have work, and little waits before a newcomer."""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from services.executor.core.pace import FIRST, LEAST, LONG_S, Pace

MOST = 256
DESKS = 12
HOP_S = 0.02
CLAIMED_AFTER_S = 2.0
WARM = 0.3
"""The share of a run that is not looked at."""


@dataclass
class Lanes:
    """Workers that share a backlog of many desks: events in the order of their instants."""

    lanes: int
    step_s: float
    left: list[int]
    desks: list[Pace] = field(default_factory=lambda: [Pace(MOST) for _ in range(DESKS)])
    now: float = 0.0
    busy_s: float = 0.0
    waits: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(1)
        self.out = [0] * DESKS
        self.free = self.lanes
        self.queue: deque[tuple[int, float]] = deque()
        self.coming: list[tuple[float, int, str, int, float]] = []
        self.count = 0

    def run(self) -> tuple[float, float]:
        """The share of the time that lanes were busy, and the median wait once the pace is found."""
        for desk in range(DESKS):
            self._ask(desk)
        while self.coming:
            self.now, _, what, desk, waited_s = heapq.heappop(self.coming)
            match what:
                case "arrived":
                    self.queue.append((desk, self.now))
                case "ended":
                    self.free += 1
                    self._later(HOP_S, "told", desk, waited_s)
                case "told":
                    self.out[desk] -= 1
                    self.desks[desk].heard(waited_s, wanted=self.left[desk] > 0)
                    self._ask(desk)
                case _:
                    self.desks[desk].heard(waited_s, wanted=self.left[desk] > 0)
            while self.free and self.queue:
                self._begin(*self.queue.popleft())
        waits = sorted(wait for at, wait in self.waits if at > WARM * self.now)
        return self.busy_s / (self.lanes * self.now), waits[len(waits) // 2]

    def _ask(self, desk: int) -> None:
        while self.left[desk] and self.out[desk] < self.desks[desk].now:
            self.left[desk] -= 1
            self.out[desk] += 1
            self._later(HOP_S, "arrived", desk)

    def _begin(self, desk: int, came_at: float) -> None:
        self.free -= 1
        waited_s, lasts_s = self.now - came_at, self.step_s * self.random.uniform(0.7, 1.3)
        self.waits.append((self.now, waited_s))
        self.busy_s += lasts_s
        if lasts_s > CLAIMED_AFTER_S:
            self._later(CLAIMED_AFTER_S + HOP_S, "claimed", desk, waited_s)
        self._later(lasts_s, "ended", desk, waited_s)

    def _later(self, after_s: float, what: str, desk: int, waited_s: float = 0.0) -> None:
        self.count += 1
        heapq.heappush(self.coming, (self.now + after_s, self.count, what, desk, waited_s))


@pytest.mark.parametrize(
    ("lanes", "step_s", "jobs"),
    [(8, 0.2, 3000), (24, 1.0, 3000), (96, 1.9, 9000), (4, 0.02, 3000), (200, 0.3, 12000)],
    ids=["few", "some", "many", "short", "most"],
)
def test_lanes_have_work_and_a_newcomer_waits_little(lanes: int, step_s: float, jobs: int) -> None:
    busy, wait_s = Lanes(lanes, step_s, [jobs // DESKS] * DESKS).run()
    assert busy > 0.85
    assert wait_s < 4 * LONG_S


def test_of_slow_steps_on_two_lanes_the_least_is_out() -> None:
    """Two of each desk: a newcomer finds 24 before it, and not 3,072."""
    busy, wait_s = Lanes(2, 1.0, [200] * DESKS).run()
    assert busy > 0.85
    assert wait_s < 1.2 * LEAST * DESKS / 2


def test_without_any_lane_for_long_it_sinks_to_the_least() -> None:
    pace = Pace(MOST)
    for _ in range(10 * FIRST):
        pace.heard(5.0, wanted=True)
    assert pace.now == LEAST


def test_when_nothing_is_out_it_begins_again() -> None:
    pace = Pace(MOST)
    for _ in range(10 * FIRST):
        pace.heard(5.0, wanted=True)
    pace.rest()
    assert pace.now == FIRST
    pace.heard(0.0, wanted=True)
    assert pace.now == FIRST + 1, "it doubles again"


def test_it_does_not_grow_while_nobody_is_kept_back_nor_beyond_the_most() -> None:
    pace = Pace(MOST)
    pace.heard(0.0, wanted=False)
    assert pace.now == FIRST
    for _ in range(2 * MOST):
        pace.heard(0.0, wanted=True)
    assert pace.now == MOST


def test_the_most_may_be_less_than_the_least() -> None:
    pace = Pace(1)
    for _ in range(4):
        pace.heard(5.0, wanted=True)
        pace.heard(0.0, wanted=True)
    assert pace.now == 1
