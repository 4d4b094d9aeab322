"""The port behind which the loop reads and appends records."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from services.contracts.envelope import Outgoing
from services.runtime.processor.types import Input

Spot = tuple[str, int]
"""A topic and a partition index."""


class Log(Protocol):
    """One group member that reads the inputs, and one idempotent producer. Used from one thread."""

    def join(self, topics: Sequence[str]) -> None:
        """Become a member of the group; assignments show in `assigned` after a `poll`."""

    @property
    def assigned(self) -> frozenset[Spot]:
        """What the group gives us now. `poll` and `idle` may change it."""

    @property
    def generation(self) -> int:
        """Another number after every change of `assigned`, also when the same spots came back; 0 until the
        group has answered."""

    def read_from(self, offsets: Mapping[Spot, int]) -> None:
        """Read exactly these spots, from these offsets; others are not read."""

    def poll(self, timeout_s: float, records_max: int, bytes_max: int) -> list[Input]:
        """What has arrived, in order per spot; waits up to `timeout_s` for the first record only."""

    def idle(self, timeout_s: float) -> None:
        """Stay a member without taking records: pauses what is read until the next `poll`."""

    def reached(self, spot: Spot) -> int:
        """The offset behind the last record known to exist in a spot, as reading showed it; 0 if unknown."""

    def lost_position(self) -> frozenset[Spot]:
        """Spots whose position was outside the log since the last call."""

    def bounds(self, spots: Iterable[Spot]) -> Mapping[Spot, tuple[int, int]]:
        """First and end offset of each spot, asked of the broker now. Raises Backpressure."""

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """The UUID of each topic that exists. Raises Backpressure."""

    def produce(self, records: Sequence[Outgoing]) -> None:
        """Hand records to the producer, in order; does not wait for acknowledgements."""

    def settle(self, timeout_s: float) -> bool:
        """Whether every record since the last True is acknowledged; waits up to `timeout_s`.

        Raises Backpressure when some were refused or timed out: produce all of them again. Halted, which is
        one, says that this does not help before the operator has changed something. Unsendable names those
        that can never be stored, when all others were.
        """

    @property
    def silence_s(self) -> float:
        """For how long the broker has answered nothing at all; any thread may ask."""

    def ask_listed(self) -> "Future[bool]":
        """Ask the group itself whether it lists us; never waits. The future fails when no broker answers."""

    def rejoin(self) -> None:
        """Give up the client that reads, in whatever state it is, and join with a new one."""

    def note_offsets(self, offsets: Mapping[Spot, int]) -> None:
        """Tell the group how far we are, for lag tools only; never raises, never waits."""

    def close(self) -> None:
        """Leave the group and drop what was not acknowledged."""
