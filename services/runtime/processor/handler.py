"""What a service implements to be driven by the loop. Nothing here does I/O."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Generic, TypeVar

from services.contracts.envelope import Outgoing
from services.runtime.processor.types import Change, Contended, Input, Poison, Routed

S = TypeVar("S")


class Handler(ABC, Generic[S]):
    """Pure decisions over keyed states. Every method may run again for the same input with the same result.

    An exception other than Poison from `apply` or `due` is taken as the fault of that one input or timer:
    it is dead-lettered, and `poisoned` may record the failure in the state.
    """

    name: str
    """The service's name: consumer group `millstream-<name>`, DLQ header `ms_service`."""

    inputs: tuple[str, ...]
    """The topics read; all have the same number of partitions."""

    @abstractmethod
    def route(self, record: Input) -> Routed | None:
        """Decode a record. None: not ours, skip it. Poison: dead-letter it untouched."""

    @abstractmethod
    def apply(
        self, routed: Routed, state: S | None, lookups: Mapping[str, S | None], record: Input, now: datetime
    ) -> Change[S]:
        """What this record does to its state. `lookups` are other states as last committed."""

    def lookups(self, key: str, state: S) -> tuple[str, ...]:
        """The states that `due` wants to read for this one; none unless overridden."""
        return ()

    def due(
        self, key: str, state: S, lookups: Mapping[str, S | None], now: datetime, caught_up_at: datetime
    ) -> Change[S]:
        """The state's timer fired. `caught_up_at`: since when this index runs without a stall, so that a
        lease is given a full term after an outage of ours. Unless overridden, no state sets a timer."""
        return Change(state)

    def poisoned(
        self, key: str, state: S | None, error: Poison, record: Input | None, now: datetime
    ) -> Change[S] | None:
        """The state's part in the failure of an input of its, or with no `record` of its timer.

        None, the default, leaves the state as it is; a timer that failed is then set again for later.
        """
        return None

    def reconcile(self, state: S, lost: frozenset[str], now: datetime) -> Iterable[Outgoing]:
        """Records to publish again because the topics `lost` were recreated empty; none unless overridden."""
        return ()

    # ------------------------------------------------------------ a memory beside the states
    #
    # A handler may keep in memory what follows from the memos (Change.memo) of its live states (those
    # with a timer): it is told of them when an index becomes ours, and of each commit. What it counts while a
    # batch is decided must be forgotten at `begin`.

    def retain(self, indexes: Collection[int]) -> None:
        """Forget all indexes but these, of which nothing has changed since the last commit."""
        return

    def remember(self, index: int, key: str, memo: bytes | None) -> None:
        """A state as committed; None: there is nothing to remember of it, or no longer."""
        return

    def begin(self) -> None:
        """A batch is about to be decided: the next one, or the same once more."""
        return

    def committed(self) -> None:
        """A batch has been committed; `remember` tells of all that it changed after this."""
        return

    def contended(self, contended: Contended) -> None:
        """The rows of the batch could not be written as decided; it is decided again after this."""
        return

    def wanted(self, now: datetime) -> Iterable[tuple[str, int]]:
        """States, each with its index, that are to go on in the next batch (`woken`), whatever their timers.

        Asked once a turn. A state is named again until its commit has made that needless.
        """
        return ()

    def woken(self, key: str, state: S, now: datetime) -> Change[S]:
        """A state that `wanted` named goes on."""
        return Change(state)

    @abstractmethod
    def encode(self, state: S) -> bytes:
        """A state as the store keeps it."""

    @abstractmethod
    def decode(self, key: str, body: bytes) -> S:
        """A state from the store."""
