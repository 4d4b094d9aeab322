"""The port behind which the loop keeps ownership, offsets, outbox and states."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from services.runtime.processor.types import Live, Owned, PartCommit, Row, StateRow


class Store(Protocol):
    """Every method may block up to its timeouts, and raises Backpressure when the store is away or slow.

    A Backpressure out of `commit` leaves the outcome unknown: `numbers` tells it.
    """

    def acquire(self, parts: Sequence[int]) -> Mapping[int, Owned]:
        """Begin a term on these indexes: one epoch bump each. From its return on, older owners are fenced."""

    def load(self, keys: Iterable[str]) -> Mapping[str, StateRow]:
        """The states that exist under these keys, of any index."""

    def states_of(self, part: int) -> Iterable[StateRow]:
        """Every state of an index, streamed: nothing else may be asked of the store until all are read."""

    def live(self, parts: Sequence[int]) -> Iterable[Live]:
        """The states of these indexes that have a timer, streamed likewise."""

    def woken(self) -> bool:
        """Whether some owner has woken states since the last call; quick, asks nothing of the store."""

    def waiting(self, parts: Sequence[int]) -> Mapping[str, tuple[int, datetime]]:
        """States of these indexes that wait for something and have been made due: key -> part, due."""

    def commit(
        self,
        parts: Sequence[PartCommit],
        states: Sequence[StateRow],
        rows: Sequence[Row],
        wakes: Sequence[str],
    ) -> None:
        """All or nothing: offsets, outboxes, states, rows. States that wait for a key in `wakes` become due.

        Raises Fenced (an index is no longer ours, or its batch number is not the next: nothing was written),
        DataError (the data of some record cannot be stored: nothing was written), Contended (the writer of
        `rows` refuses them as they are: nothing was written) or Backpressure (unknown).
        """

    def numbers(self, parts: Sequence[int]) -> Mapping[int, tuple[int, int]]:
        """Epoch and batch number of these indexes as stored."""

    def now(self) -> datetime:
        """The store's clock: aware, UTC."""
