"""What runs the takes of one queue: lanes for steps that compute, calls for those that wait for others."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.executor.work.calls import Calls
from services.executor.work.lanes import Lanes
from services.executor.work.works import Works


@dataclass(frozen=True, slots=True)
class Hands:
    """Both, and the works that they share."""

    works: Works
    lanes: Lanes
    calls: Calls

    def withdraw(self, partitions: Iterable[int] | None = None) -> None:
        """Forget takes that have not begun: of these partitions, or all of them. Claimed ones stay."""
        lost = None if partitions is None else frozenset(partitions)
        self.lanes.withdraw(lost)
        self.calls.withdraw(lost)

    def drain(self, timeout_s: float, grace_s: float) -> bool:
        """As `Works.drain`; what has not begun is withdrawn, or given back where it is claimed."""
        self.withdraw()
        self.calls.give_back()
        drained = self.works.drain(timeout_s, grace_s)
        self.lanes.close()
        return drained
