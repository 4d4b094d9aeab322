"""One partition of a queue as its reader sees it: what waits, what was taken, and what may be committed."""

from collections import deque
from dataclasses import dataclass, field

from msgspec import Struct

from services.contracts.commands import StepRequested
from services.contracts.envelope import Outgoing


class Place(Struct, frozen=True, gc=False):
    """Where a record lies in its queue."""

    partition: int
    offset: int


class Waiting(Struct, frozen=True, gc=False):
    """A record that was read and not yet taken: a step, or the dead letter of what could not be decoded.

    `came_at` is the instant of the monotonic clock from which on it has been known to wait.
    """

    offset: int
    work: StepRequested | Outgoing
    came_at: float


@dataclass(slots=True)
class Partition:
    """Bookkeeping without I/O, for one thread.

    `max_in_flight` bounds the records that are taken and not yet committed: a process that dies leaves no
    more than that to its successor, which therefore claims that many first. `end` is the log's end when the
    partition came to us; whatever lies behind it was never another's.
    """

    number: int
    max_in_flight: int
    end: int | None = None
    paused: bool = False
    waiting: deque[Waiting] = field(default_factory=deque)
    _first: int | None = None
    _taken: deque[int] = field(default_factory=deque)
    _settled: set[int] = field(default_factory=set)
    _next: int | None = None
    _uncommitted: int = 0

    def came(self, record: Waiting) -> None:
        """A record was read."""
        if self._first is None:
            self._first = record.offset
        self.waiting.append(record)

    @property
    def room(self) -> int:
        """How many more may be taken now."""
        return self.max_in_flight - len(self._taken) - self._uncommitted

    def may_have_killed(self, offset: int) -> bool:
        """Whether a former owner may have died running this record."""
        assert self._first is not None, "the record came"
        return offset < self._first + self.max_in_flight and (self.end is None or offset < self.end)

    def take(self) -> Place:
        """The next record of `waiting` is now in flight."""
        offset = self.waiting.popleft().offset
        self._taken.append(offset)
        return Place(self.number, offset)

    def settle(self, offset: int) -> None:
        """The record needs us no more: its outcome or its claim is in the log."""
        if not self._taken or offset < self._taken[0]:
            return  # settled before: by its claim, and now by its outcome
        self._settled.add(offset)
        while self._taken and self._taken[0] in self._settled:
            done = self._taken.popleft()
            self._settled.discard(done)
            self._next = done + 1
            self._uncommitted += 1

    @property
    def to_commit(self) -> int | None:
        """The offset to commit: behind the contiguous settled prefix. None: nothing new."""
        return self._next if self._uncommitted else None

    def committed(self) -> None:
        """What `to_commit` said is committed."""
        self._uncommitted = 0
