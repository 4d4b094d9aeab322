"""One batch: inputs and due timers against states, folded into what has to be committed. No I/O."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from services.contracts.envelope import Outgoing
from services.contracts.errors import Undecodable
from services.runtime.processor.handler import Handler
from services.runtime.processor.letters import dead_letter
from services.runtime.processor.types import Change, Input, Poison, Routed, Row, StateRow

S = TypeVar("S")

RECORD_BYTES_MAX = 900_000
"""Brokers refuse records above 1 MiB; an input that would need one is poison, not a jam."""
TIMER_AGAIN = timedelta(seconds=60)
"""When a timer that failed is tried again, unless its handler says what becomes of the state."""


@dataclass(frozen=True, slots=True)
class Timer:
    """A state whose timer is due. `caught_up_at` is its index's (see Handler.due).

    `wanted`: its timer has nothing to do with it, the handler wants it to go on (see Handler.wanted).
    """

    key: str
    part: int
    caught_up_at: datetime
    wanted: bool = False


@dataclass(slots=True)
class PartTurn:
    """What the batch does to one index."""

    offsets: dict[str, int] = field(default_factory=dict)
    out: list[Outgoing] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    states: dict[str, StateRow] = field(default_factory=dict)
    wakes: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Turn(Generic[S]):
    """What the batch does, by index, and the states as they will be."""

    parts: dict[int, PartTurn] = field(default_factory=dict)
    states: dict[str, S | None] = field(default_factory=dict)
    failed_timers: list[tuple[str, Poison]] = field(default_factory=list)

    def part(self, index: int) -> PartTurn:
        """The index's share, made on first use."""
        found = self.parts.get(index)
        if found is None:
            found = self.parts[index] = PartTurn()
        return found


class Batch(Generic[S]):
    """Folds inputs and timers, in order, over `states` (everything they need, loaded before)."""

    def __init__(self, handler: Handler[S], states: Mapping[str, S | None], now: datetime) -> None:
        """`states` maps every key that the inputs route to; None where there is no state."""
        self._handler = handler
        self._loaded = states
        self._now = now
        self.turn: Turn[S] = Turn()

    def feed(self, record: Input, routed: Routed | Poison | None) -> None:
        """One record with its routing; Poison is dead-lettered, None skipped."""
        part = self.turn.part(record.partition)
        part.offsets[record.topic] = record.offset + 1
        if isinstance(routed, Poison):
            part.out.append(dead_letter(self._handler.name, record, routed))
            return
        if routed is None:
            return
        state, lookups = self._get(routed.key), self._lookups(routed.lookups)
        self._guarded(
            lambda: self._handler.apply(routed, state, lookups, record, self._now),
            routed.key,
            record.partition,
            record,
        )

    def fire(self, timer: Timer) -> None:
        """One due timer; where the state is gone, so is its timer."""
        state = self._get(timer.key)
        if state is None:
            self._keep(timer.key, timer.part, Change(None), None)
            return
        if timer.wanted:
            self._guarded(
                lambda: self._handler.woken(timer.key, state, self._now), timer.key, timer.part, None
            )
            return
        self._guarded(
            lambda: self._handler.due(
                timer.key,
                state,
                self._lookups(self._handler.lookups(timer.key, state)),
                self._now,
                timer.caught_up_at,
            ),
            timer.key,
            timer.part,
            None,
        )

    def poison(self, record: Input, error: Poison, key: str | None) -> None:
        """A record that can never be processed: its dead letter, and the mark it leaves in its state."""
        part = self.turn.part(record.partition)
        part.offsets[record.topic] = record.offset + 1
        part.out.append(dead_letter(self._handler.name, record, error))
        if key is not None and (judged := self._verdict(key, error, record)) is not None:
            self._keep(key, record.partition, *judged)

    def poison_timer(self, timer: Timer, error: Poison) -> None:
        """A timer that cannot be processed: its state is marked, or the timer comes again later.

        A state never loses its timer for a fault: what waits for it would wait for ever.
        """
        self.turn.failed_timers.append((timer.key, error))
        judged = self._verdict(timer.key, error, None)
        if judged is None:
            self.postpone(timer)
        else:
            self._keep(timer.key, timer.part, *judged)

    def postpone(self, timer: Timer) -> None:
        """The state as it is, and its timer once more."""
        state = self._get(timer.key)
        if state is not None:
            change = Change(state, due_at=self._now + TIMER_AGAIN)
            self._keep(timer.key, timer.part, change, self._encoded(change))

    def _guarded(self, decide: Callable[[], Change[S]], key: str, part: int, record: Input | None) -> None:
        try:
            change = decide()
            _check_sizes(change.out)
            body = self._encoded(change)
        except Exception as error:  # the one input is at fault, not its neighbours
            poison = (
                error
                if isinstance(error, Poison)
                else Poison("internal_error", f"{type(error).__name__}: {error}")
            )
            if record is None:
                self.poison_timer(Timer(key, part, self._now), poison)
            else:
                self.poison(record, poison, key)
            return
        if change.state is None and record is not None and self._get(key) is None:
            self._say(part, change)  # there was no state and there is none: nothing to delete
        else:
            self._keep(key, part, change, body)
        if change.dead is not None and record is not None:
            self.turn.part(part).out.append(dead_letter(self._handler.name, record, change.dead))

    def _verdict(
        self, key: str, error: Poison, record: Input | None
    ) -> tuple[Change[S], bytes | None] | None:
        try:
            change = self._handler.poisoned(key, self._get(key), error, record, self._now)
            if change is None:
                return None
            _check_sizes(change.out)
            return change, self._encoded(change)
        except Exception:  # a handler that cannot even say so leaves its state as it is
            return None

    def _encoded(self, change: Change[S]) -> bytes | None:
        return None if change.state is None else self._handler.encode(change.state)

    def _keep(self, key: str, part: int, change: Change[S], body: bytes | None) -> None:
        share = self._say(part, change)
        share.states[key] = StateRow(key, part, body, change.due_at, change.waits_for, change.memo)
        self.turn.states[key] = change.state
        if change.wakes:
            share.wakes.add(key)

    def _say(self, part: int, change: Change[S]) -> PartTurn:
        share = self.turn.part(part)
        share.out.extend(change.out)
        share.rows.extend(change.rows)
        return share

    def _get(self, key: str) -> S | None:
        return self.turn.states[key] if key in self.turn.states else self._loaded.get(key)

    def _lookups(self, keys: Iterable[str]) -> Mapping[str, S | None]:
        return {key: self._get(key) for key in keys}


def route_all(handler: Handler[S], records: Sequence[Input]) -> list[Routed | Poison | None]:
    """Decode each record; what cannot be decoded becomes the Poison that says why."""
    return [_route(handler, record) for record in records]


def _route(handler: Handler[S], record: Input) -> Routed | Poison | None:
    try:
        routed = handler.route(record)
        if routed is not None and ("\0" in routed.key or any("\0" in key for key in routed.lookups)):
            raise Poison("bad_key", "a key holds NUL, which no database takes")
        return routed
    except Poison as error:
        return error
    except Undecodable as error:
        return Poison("undecodable", str(error))
    except Exception as error:
        return Poison("internal_error", f"{type(error).__name__}: {error}")


def _check_sizes(out: Sequence[Outgoing]) -> None:
    for record in out:
        size = len(record.value or b"")
        if size > RECORD_BYTES_MAX:
            raise Poison(
                "too_large",
                f"it leads to a {record.topic} record of {size} bytes; the limit is {RECORD_BYTES_MAX}",
            )
