"""How many steps may be out: as many as the lanes of all workers take, which nobody tells but the waits.

Every step that begins says how long it had waited for a lane. While they hardly wait there are free lanes,
and one more may be out each time; while they wait long, one less: so the number doubles, or halves, while
what is out goes round once. What is out is worked off in its order, so this is what a newcomer finds before
it, however many lanes there are and however long the steps take.
"""

from dataclasses import dataclass

HARDLY_S = 0.05
LONG_S = 0.2
LEAST = 2
FIRST = 8


@dataclass(slots=True)
class Pace:
    """Between LEAST and `most`."""

    most: int
    now: int = 0

    def __post_init__(self) -> None:
        self.now = self.now or min(FIRST, self.most)

    def heard(self, waited_s: float, *, wanted: bool) -> None:
        """A step began after this wait; `wanted`: others are kept back."""
        if waited_s <= HARDLY_S and wanted:
            self.now = min(self.now + 1, self.most)
        elif waited_s >= LONG_S:
            self.now = max(self.now - 1, min(LEAST, self.most))
