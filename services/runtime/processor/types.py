"""The values that pass between the loop, its handler, its store and its log.

Those that each record needs are Structs, which are made several times as fast as frozen dataclasses and leave
the garbage collector nothing to look at: none of them is part of a cycle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from services.contracts.envelope import Headers, Outgoing

S = TypeVar("S")


class Backpressure(Exception):
    """The world is slow or away (a connection lost, a deadlock): pause, keep polling, do the same again."""


class Halted(Backpressure):
    """The broker refuses what only the operator can change: a topic is missing, or the right to write to it.

    Nothing is lost and nothing else is taken: the loop stands still with this reason until it is changed.
    """


class Unsendable(Exception):
    """The broker will never take these records; all others of the batch are acknowledged."""

    def __init__(self, refused: Sequence[tuple[Outgoing, str]]) -> None:
        """`refused`: each record with its reason."""
        super().__init__(f"{len(refused)} records, the first: {refused[0][1]}")
        self.refused = tuple(refused)


class DataError(Exception):
    """The database refuses the data of this batch (SQLSTATE 22, 23, 54): some record in it is poison."""


class Fenced(Exception):
    """Another owner took some of our indexes over; nothing of the batch was written."""


class Contended(Exception):
    """Rows of the batch want what others have, or need not have waited for it; nothing was written.

    The handler is told (Handler.contended), and the batch is decided again.
    """


class Poison(Exception):
    """This input can never be processed. `reason` is a stable word for the dead letter's header."""

    def __init__(self, reason: str, message: str, value: bytes | None = None) -> None:
        """`message` says what was expected and found; `value` replaces the dead letter's, if given."""
        super().__init__(message)
        self.reason = reason
        self.value = value


class Input(msgspec.Struct, frozen=True, gc=False):
    """A consumed record. `partition` is the index whose owner handles it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def address(self) -> str:
        """`<topic>/<partition>/<offset>`: where a person finds the original."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Routed(msgspec.Struct, frozen=True, gc=False):
    """A decoded input: the key of the state it changes, and keys of other states its decision reads."""

    key: str
    message: Any
    lookups: tuple[str, ...] = ()


class Row(msgspec.Struct, frozen=True, gc=False):
    """Something to write beside the state, in the same transaction. `kind` selects the writer's statement."""

    kind: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change(Generic[S]):
    """What one input or timer does to one state.

    `state` None deletes it. `due_at` is the instant of its one timer, `waits_for` the key of a state whose
    next change with `wakes` makes this one due at once, `memo` what the handler keeps in memory of a state
    with a timer (Handler.remember), `dead` a reason for which the input also becomes a dead letter.
    """

    state: S | None
    due_at: datetime | None = None
    waits_for: str | None = None
    wakes: bool = False
    memo: bytes | None = None
    out: tuple[Outgoing, ...] = ()
    rows: tuple[Row, ...] = ()
    dead: Poison | None = None


@dataclass(slots=True)
class Owned:
    """One index we own, as the database tells it at the start of our term."""

    epoch: int
    batch_no: int
    offsets: dict[str, tuple[str, int]]
    outbox: tuple[Outgoing, ...] = ()


class StateRow(msgspec.Struct, frozen=True, gc=False):
    """One state as the store keeps it; `body` None deletes the row."""

    key: str
    part: int
    body: bytes | None
    due_at: datetime | None
    waits_for: str | None
    memo: bytes | None = None


class Live(msgspec.Struct, frozen=True, gc=False):
    """A state that has a timer, without its body."""

    part: int
    key: str
    due_at: datetime
    memo: bytes | None


@dataclass(frozen=True, slots=True)
class PartCommit:
    """What a batch commits for one index: guarded by `epoch`, and by `batch_no` being the next one."""

    part: int
    epoch: int
    batch_no: int
    offsets: Mapping[str, tuple[str, int]]
    outbox: bytes
