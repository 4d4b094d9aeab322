"""Rounds of kills: crash points hit exactly, every process killed at random instants, everything at once."""

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.harness.report import Row
from tests.faults.harness.system import EVERYTHING
from tests.faults.harness.world import Found, World

# Each start of a round arms one group. Every class has a point in every round. Points of the loop stand where
# little waits at the start, but for the last: a crash there ends dev as it starts; it is started again.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("worker.claim", "loop.decided", "loop.settled", "loop.commit"),
    ("worker.copy", "outbox.claimed", "notifier.send", "api.submit.commit"),
    ("worker.blob", "outbox.produced", "notifier.sent", "api.submit.committed"),
    ("worker.outcome", "worker.outcome.acknowledged", "loop.committed", "loop.produced"),
)
CLASSES: dict[str, frozenset[str]] = {
    "claim": frozenset({"worker.claim"}),
    "COPY": frozenset({"worker.copy"}),
    "blob write": frozenset({"worker.blob"}),
    "publish of step.completed": frozenset({"worker.outcome", "worker.outcome.acknowledged"}),
    "outbox produce": frozenset({"outbox.claimed", "outbox.produced", "loop.committed", "loop.produced"}),
    "webhook send": frozenset({"notifier.send", "notifier.sent"}),
}
EXECUTIONS = 200
SPACING_S = 0.25


@dataclass(slots=True)
class Round:
    """One round of `make faults`: four lives of the system, each ended by kill -9 of everything."""

    world: World
    number: int
    seed: int
    kills_before: Counter[str] = field(default_factory=Counter)
    hits_before: Counter[str] = field(default_factory=Counter)

    def run(self) -> tuple[Row, Found]:
        """Everything, then the checks. The system is left running."""
        system = self.world.system
        self.kills_before, self.hits_before = system.kills.copy(), system.hits.copy()
        asked_before, calls_before = len(self.world.history.asked), len(self.world.receiver.calls)
        names = [*EVERYTHING]
        self.world.rng.shuffle(names)
        for index, points in enumerate(GROUPS):
            share = names[index :: len(GROUPS)]
            self._life(points, share)
        system.start()
        self.world.settle()
        found = self.world.check(asked_before)
        row = Row(
            round=self.number,
            seed=self.seed,
            kills=dict(system.kills - self.kills_before),
            hits=dict(system.hits - self.hits_before),
            asked=len(self.world.history.asked) - asked_before,
            accepted=len(self.world.history.accepted()),
            ends=found.ends,
            webhooks=len(self.world.receiver.calls) - calls_before,
            duplicates=found.duplicates,
            leftovers=found.leftovers,
            failed_starts=system.failed_starts,
            recoveries=found.recoveries,
        )
        return row, found

    def missing_classes(self) -> set[str]:
        """Classes that no point of this round hit."""
        hit = (self.world.system.hits - self.hits_before).keys()
        return {name for name, points in CLASSES.items() if not points & hit}

    def _life(self, points: tuple[str, ...], names: list[str]) -> None:
        world = self.world
        world.system.start(points)
        with world.submitting(EXECUTIONS // len(GROUPS), SPACING_S):
            for name in names:
                world.wait(world.rng.uniform(1, 8))
                world.system.kill(name)
            world.system.await_hits()
        world.wait(world.rng.uniform(0, 3))
        world.system.kill_everything()
