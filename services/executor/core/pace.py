"""How many steps may be out: as many as the lanes of all workers take, which nobody tells but the waits.

Every step that begins says how long it had waited for a lane. While all hardly wait there are free lanes: the
number doubles while what is out goes round once. The first long wait halves it. After that it grows by a
tenth in each round, and a long wait takes a tenth off, once for all that were out then, until some rounds
were calm. What is out is worked off in its order, so this is what a newcomer finds before it, however many
lanes there are and however long the steps take. Of the figures that were tried in the simulation of the
tests, these kept lanes busy with the shortest waits.
"""

from dataclasses import dataclass

HARDLY_S = 0.05
LONG_S = 0.1
LEAST = 2
FIRST = 16
HALF = 0.5
CREEP = 0.1
CALM_ROUNDS = 4
"""After so many rounds without a long wait it doubles again."""


@dataclass(slots=True)
class Pace:
    """Between LEAST and `most`."""

    most: int
    size: float = 0.0
    _deaf: int = 0
    """Words to come that tell of what was out before it shrank."""
    _calm: float = float("inf")
    """Words since one that told of a long wait."""

    def __post_init__(self) -> None:
        self.size = self.size or float(min(FIRST, self.most))

    @property
    def now(self) -> int:
        """How many may be out."""
        return int(self.size)

    def rest(self) -> None:
        """Nothing is out: what was found out may be true no more, and a few jobs must not wait for words."""
        self.size = max(self.size, float(min(FIRST, self.most)))
        self._calm, self._deaf = float("inf"), 0

    def heard(self, waited_s: float, *, wanted: bool) -> None:
        """A step began after this wait; `wanted`: others are kept back."""
        self._calm += 1
        doubling = self._calm > CALM_ROUNDS * self.size
        if self._deaf:
            self._deaf -= 1
        elif waited_s >= LONG_S:
            self._calm, self._deaf = 0, self.now
            left = self.size * (1 - (HALF if doubling else CREEP))
            self.size = max(left, float(min(LEAST, self.most)))
        elif waited_s <= HARDLY_S and wanted:
            self.size = min(self.size + (1 if doubling else CREEP), float(self.most))
