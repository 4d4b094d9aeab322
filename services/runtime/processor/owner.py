"""Which indexes are ours, how far each one is, and which of their timers may be judged."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.contracts.envelope import Outgoing
from services.runtime import telemetry
from services.runtime.membership import Unread
from services.runtime.processor import metrics
from services.runtime.processor.batch import Timer, Turn
from services.runtime.processor.handler import Handler
from services.runtime.processor.log import Log, Spot
from services.runtime.processor.outbox import pack
from services.runtime.processor.part import Barrier, Part, Timers
from services.runtime.processor.store import Store
from services.runtime.processor.types import Backpressure, Input, Owned, PartCommit

log = telemetry.get_logger()

RETRY_LOST_INDEX_S = 2.0
NOTE_OFFSETS_S = 5.0
NOT_FOLLOWED = -1
CATCH_UP_POLL = timedelta(milliseconds=10)


@dataclass(frozen=True, slots=True)
class Adopted:
    """What came of following the group: the indexes that stayed ours throughout, and the others' outboxes."""

    same: frozenset[int]
    outbox: list[Outgoing]


class Owner:
    """The indexes of one group member. An index starts when all the loop's inputs with it are assigned."""

    def __init__(
        self, handler: Handler[Any], store: Store, log: Log, outputs: tuple[str, ...], topic_check_s: float
    ) -> None:
        """`outputs` are watched for a lost log like the inputs, but not read."""
        self.parts: dict[int, Part] = {}
        self._former: dict[int, Part] = {}
        """What was ours when the group changed, until all of what is ours now has been taken up."""
        self._handler, self._inputs, self._outputs = handler, handler.inputs, outputs
        self._store, self._log = store, log
        self._topic_check_s = topic_check_s
        self._generation = 0
        self._unsaved: dict[int, set[str]] = {}
        self._lost: dict[int, frozenset[str]] = {}
        self._parked: dict[str, set[tuple[int, str]]] = {}
        self._topics_checked_at = self._noted_at = time.monotonic()
        self._retry_at: float | None = None
        self._unread: Unread[Spot] = Unread()

    def adopt(self) -> Adopted | None:
        """Follow the group: acquire what it assigns, and read what is new. None: unchanged."""
        if not self._changed():
            return None
        generation, assigned = self._log.generation, self._log.assigned
        self._former, self.parts = self.parts or self._former, {}
        self._generation = NOT_FOLLOWED  # until all of this is done: what fails below is tried again
        self._retry_at = None
        indexes = sorted(
            index
            for index in {index for _, index in assigned}
            if all((t, index) in assigned for t in self._inputs)
        )
        ids = self._topic_ids()
        bounds = (
            self._log.bounds([(topic, index) for topic in self._inputs for index in indexes])
            if indexes
            else {}
        )
        owned = self._store.acquire(indexes) if indexes else {}
        same = frozenset(index for index in indexes if _untouched(self._former.get(index), owned[index]))
        timers = self._timers(same, indexes)
        self.parts = {index: self._part(index, owned[index], ids, bounds, timers[index]) for index in indexes}
        self._unread.forget()
        self._log.read_from(self._positions())
        self._generation, self._former = generation, {}
        metrics.OWNED.set(len(indexes))
        epochs = {index: owned[index].epoch for index in indexes}
        log.info("indexes_acquired", indexes=indexes, same=sorted(same), epochs=epochs)
        # Of an index that stayed ours the last batch is with the broker, or on its way there.
        left = [record for index in indexes if index not in same for record in owned[index].outbox]
        return Adopted(same, left)

    def lost_topics(self) -> Mapping[int, frozenset[str]]:
        """Indexes whose stored topic UUIDs are not today's, with those topics; empty once committed."""
        return {index: lost for index, lost in self._lost.items() if index in self.parts}

    def start_over(self) -> None:
        """Read again from what was committed: something polled was not."""
        self._unread.forget()
        if self._generation == self._log.generation:
            self._log.read_from(self._positions())

    def unread_s(self) -> float:
        """For how long a record of ours has lain unread, in seconds, as seen at the checks of the topics."""
        age_s = self._unread.age_s(self._read_to, time.monotonic())
        metrics.UNREAD.set(age_s)
        return age_s

    def stalled(self) -> None:
        """We stood still: every index has to catch up before it judges a timer."""
        self._unread.forget()
        for part in self.parts.values():
            part.caught_up_at = part.barrier = None

    def expected(self, records: Iterable[Input]) -> list[Input]:
        """The records that are ours and not yet committed."""
        return [
            record
            for record in records
            if (part := self.parts.get(record.partition)) is not None
            and record.offset >= part.positions[record.topic]
        ]

    def due_timers(self, now: datetime, at_most: int) -> list[Timer]:
        """Timers whose index has read everything that lay in its inputs after they became due."""
        self._wake(now)
        pending = [part for part in self.parts.values() if part.caught_up_at is None or _is_due(part, now)]
        self._raise_barriers([part for part in pending if part.barrier is None], now)
        timers: list[Timer] = []
        for part in pending:
            barrier = part.barrier
            if barrier is None or not self._passed(part, barrier):
                continue
            part.barrier = None
            part.caught_up_at = part.caught_up_at or now
            keys = part.timers.due(barrier.instant, at_most)
            timers.extend(Timer(key, part.index, part.caught_up_at) for key in keys)
        return timers

    def wanted(self, now: datetime) -> list[Timer]:
        """States of ours that the handler wants to go on."""
        return [
            Timer(key, index, now, wanted=True)
            for key, index in self._handler.wanted(now)
            if index in self.parts
        ]

    def next_instant(self, now: datetime) -> datetime | None:
        """When something wants attention even if no record arrives."""
        if any(part.barrier is not None or part.caught_up_at is None for part in self.parts.values()):
            return now + CATCH_UP_POLL
        return min(
            (due for part in self.parts.values() if (due := part.timers.next()) is not None), default=None
        )

    def commits(self, turn: Turn[Any]) -> list[PartCommit]:
        """The guards and offsets of a batch."""
        return [self._part_commit(self.parts[index], turn) for index in turn.parts]

    def committed(self, turn: Turn[Any]) -> None:
        """The batch is true now: numbers, positions and timers follow."""
        for index, share in turn.parts.items():
            part = self.parts[index]
            part.batch_no += 1
            part.positions.update(share.offsets)
            self._unsaved.pop(index, None)
            self._lost.pop(index, None)
            for key, row in share.states.items():
                part.timers.set(key, row.due_at)
                self._handler.remember(index, key, row.memo)
                if row.waits_for is not None:
                    self._parked.setdefault(row.waits_for, set()).add((index, key))

    def verify(self, numbers: Mapping[int, tuple[int, int]]) -> bool:
        """Drop the indexes that have another owner now; if the group still says ours, ask again soon.

        Returns whether there were any.
        """
        lost = [index for index, (epoch, _) in numbers.items() if epoch != self.parts[index].epoch]
        for index in lost:
            del self.parts[index]
        if lost:
            self._handler.retain(self.parts)
            log.warning("indexes_fenced", indexes=lost)
            self._retry_at = time.monotonic() + RETRY_LOST_INDEX_S
            metrics.OWNED.set(len(self.parts))
        return bool(lost)

    def drop_lost(self, turn: Turn[Any]) -> None:
        """Take the indexes that are not ours any more out of a batch."""
        for index in [index for index in turn.parts if index not in self.parts]:
            del turn.parts[index]

    def note_offsets(self) -> None:
        """Every 5 s, what lag tools want to know."""
        if time.monotonic() - self._noted_at < NOTE_OFFSETS_S:
            return
        self._noted_at = time.monotonic()
        changed: dict[Spot, int] = {}
        for part in self.parts.values():
            changed |= {(t, part.index): at for t, at in part.positions.items() if part.noted.get(t) != at}
            part.noted = dict(part.positions)
        self._log.note_offsets(changed)

    def _timers(self, same: frozenset[int], indexes: Sequence[int]) -> Mapping[int, Timers]:
        """The timers and the handler's memory: at hand for an index that is the same, others are read."""
        self._handler.retain(same)
        self._parked = {
            awaited: here
            for awaited, waiters in self._parked.items()
            if (here := {waiter for waiter in waiters if waiter[0] in same})
        }
        due: dict[int, dict[str, datetime]] = {index: {} for index in indexes if index not in same}
        for live in self._store.live([*due]) if due else ():
            due[live.part][live.key] = live.due_at
            if live.memo is not None:
                self._handler.remember(live.part, live.key, live.memo)
        return {
            index: self._former[index].timers if index in same else Timers(due.pop(index))
            for index in indexes
        }

    def _changed(self) -> bool:
        if self._log.generation != self._generation or self._log.lost_position():
            return True
        if self._retry_at is not None and time.monotonic() >= self._retry_at:
            return True
        return self._topics_recreated()

    def _topics_recreated(self) -> bool:
        if not self.parts or time.monotonic() - self._topics_checked_at < self._topic_check_s:
            return False
        ids = self._topic_ids()
        ends = {spot: end for spot, (_, end) in self._log.bounds(self._positions()).items()}
        self._unread.note(ends, self._read_to, time.monotonic())
        return any(part.topic_ids != ids for part in self.parts.values())

    def _read_to(self, spot: Spot) -> int:
        """Up to where the spot is handled or known to hold nothing."""
        topic, index = spot
        part = self.parts.get(index)
        return 0 if part is None else max(part.positions[topic], self._log.reached(spot))

    def _topic_ids(self) -> dict[str, str]:
        self._topics_checked_at = time.monotonic()
        wanted = (*self._inputs, *self._outputs)
        ids = dict(self._log.topic_ids(wanted))
        if missing := sorted(set(wanted) - set(ids)):
            raise Backpressure(f"topics are missing: {', '.join(missing)}; run `millstream topics apply`")
        return ids

    def _part(
        self,
        index: int,
        owned: Owned,
        ids: dict[str, str],
        bounds: Mapping[Spot, tuple[int, int]],
        timers: Timers,
    ) -> Part:
        positions: dict[str, int] = {}
        lost = {topic for topic, (id, _) in owned.offsets.items() if topic in ids and ids[topic] != id}
        for topic in self._inputs:
            first, end = bounds[topic, index]
            stored = owned.offsets.get(topic)
            if stored is None or topic in lost:
                positions[topic] = first
            elif first <= stored[1] <= end:
                positions[topic] = stored[1]
            else:
                log.error(
                    "offset_outside_log", topic=topic, index=index, stored=stored[1], first=first, end=end
                )
                positions[topic] = first
                lost.add(topic)
        self._unsaved[index] = {topic for topic in ids if topic in lost or topic not in owned.offsets}
        if lost:
            self._lost[index] = frozenset(lost)
        return Part(index, owned.epoch, owned.batch_no, ids, positions, timers)

    def _part_commit(self, part: Part, turn: Turn[Any]) -> PartCommit:
        share = turn.parts[part.index]
        ahead = {**{t: part.positions.get(t, 0) for t in self._unsaved.get(part.index, ())}, **share.offsets}
        offsets = {topic: (part.topic_ids[topic], at) for topic, at in ahead.items()}
        return PartCommit(part.index, part.epoch, part.batch_no + 1, offsets, pack(share.out))

    def _positions(self) -> dict[Spot, int]:
        return {
            (topic, part.index): at for part in self.parts.values() for topic, at in part.positions.items()
        }

    def _wake(self, now: datetime) -> None:
        """Parked states whose reason has appeared: seen on a look after parking, or told by a notice."""
        if self._parked:
            found = self._store.load(self._parked)
            for waiter in [waiter for key in found for waiter in self._parked[key]]:
                self._set_due(*waiter, now)
            self._parked = {}
        if self._store.woken():
            for key, (index, due_at) in self._store.waiting(tuple(self.parts)).items():
                self._set_due(index, key, due_at)

    def _set_due(self, index: int, key: str, instant: datetime) -> None:
        if index in self.parts:
            self.parts[index].timers.set(key, instant)

    def _raise_barriers(self, parts: Sequence[Part], now: datetime) -> None:
        if not parts:
            return
        bounds = self._log.bounds([(topic, part.index) for part in parts for topic in self._inputs])
        for part in parts:
            part.barrier = Barrier(now, {topic: bounds[topic, part.index][1] for topic in self._inputs})

    def _passed(self, part: Part, barrier: Barrier) -> bool:
        return all(self._read_to((topic, part.index)) >= end for topic, end in barrier.ends.items())


def _untouched(part: Part | None, owned: Owned) -> bool:
    """Whether nobody owned it between our former term and this one, so that what we know of it is true."""
    return part is not None and (part.epoch + 1, part.batch_no) == (owned.epoch, owned.batch_no)


def _is_due(part: Part, now: datetime) -> bool:
    due = part.timers.next()
    return due is not None and due <= now
