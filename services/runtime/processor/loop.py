"""The engine: poll, decide, settle the former batch, commit, produce.

Order of operations, and what a crash between any two of them leaves behind:

1. poll, load, decide: nothing outside has changed; the records come again.
2. settle: every record of the former batch is acknowledged, so its outbox bytes are not needed any more.
3. commit: states, offsets and the new outbox, all or nothing. From here on the batch has happened.
4. produce: after a crash the next owner publishes the outbox again; readers know records by their ids.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from services.contracts.envelope import Outgoing
from services.runtime import crash, telemetry
from services.runtime.entropy import RemoteClock
from services.runtime.membership import PATIENCE, OutOfGroup, Patience, Verdict, Vigil
from services.runtime.processor import letters, metrics
from services.runtime.processor.batch import Batch, Timer, Turn, route_all
from services.runtime.processor.cache import CACHE_BYTES, Cache
from services.runtime.processor.handler import Handler
from services.runtime.processor.letters import Letters
from services.runtime.processor.log import Log
from services.runtime.processor.owner import Owner
from services.runtime.processor.store import Store
from services.runtime.processor.types import (
    Backpressure,
    Contended,
    DataError,
    Fenced,
    Halted,
    Input,
    Poison,
    Routed,
    Unsendable,
)

CONTENDED_MAX = 100
"""So often a batch is decided again at once; then the group is served before the next try."""

UNANSWERED_MAX = 120
"""Waits of half a second. A producer gives up after 20 s: one that says nothing for longer is stuck."""

S = TypeVar("S")
Routing = tuple[Input, Routed | Poison | None]
log = telemetry.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much and how long. Tests shorten the times; production uses these."""

    records: int = 2000
    bytes: int = 8 * 1024 * 1024
    timers: int = 1000
    idle_s: float = 0.1
    stall_s: float = 5.0
    topic_check_s: float = 30.0
    fresh_s: float = 15.0
    silent_s: float = 10.0
    patience: Patience = PATIENCE


class Processor(Generic[S]):
    """Drives one handler. `run` blocks its thread; `live` and `ready` may be asked from any other."""

    def __init__(
        self,
        handler: Handler[S],
        store: Store,
        log: Log,
        letters: Letters,
        outputs: Sequence[str] = (),
        limits: Limits | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """`outputs` are topics whose loss the handler wants to reconcile (Handler.reconcile); `cache_bytes`
        bounds the states in memory (Cache)."""
        self._handler, self._store, self._log, self._letters = handler, store, log, letters
        self._limits = limits or Limits()
        self._owner = Owner(handler, store, log, tuple(outputs), self._limits.topic_check_s)
        self._cache: Cache[S] = Cache(handler, store, cache_bytes)
        self._clock: RemoteClock | None = None
        group = f"millstream-{handler.name}"
        self._vigil = Vigil(group, log.ask_listed, time.monotonic(), self._limits.patience)
        self._unsettled: tuple[Outgoing, ...] = ()
        self._turned_at = time.monotonic()
        self._trouble: str | None = "not started"

    def run(self, stop: threading.Event) -> None:
        """Turn until `stop` is set, then settle and leave the group. Other exceptions pass: crash loudly."""
        self._log.join(self._handler.inputs)
        try:
            while not stop.is_set():
                self.turn(stop)
            self._settle(stop, deadline_s=5.0)
        finally:
            self._log.close()

    def live(self) -> tuple[bool, str]:
        """The loop turns, if only to wait."""
        age = time.monotonic() - self._turned_at
        return age < self._limits.fresh_s, f"last turn {age:.1f} s ago"

    def ready(self) -> tuple[bool, str]:
        """Database and broker answer, the group has us (without an index too), no turn waits for long."""
        trouble = self._trouble or self._vigil.trouble
        if trouble is None and self._log.silence_s > self._limits.silent_s:
            trouble = f"no broker has answered for {self._log.silence_s:.0f} s"
        age = time.monotonic() - self._turned_at
        if trouble is None and age > self._limits.stall_s:
            trouble = f"last turn {age:.1f} s ago: database or broker does not answer"
        return (trouble is None, trouble or f"last turn {age:.1f} s ago")

    def degraded(self, name: str) -> tuple[str, ...]:
        """For a process that does other work without this loop: why it is not ready, if so."""
        is_ready, detail = self.ready()
        return () if is_ready else (f"{name}: {detail}",)

    def turn(self, stop: threading.Event) -> None:
        """One turn; Backpressure anywhere becomes a pause, after which the same work comes again."""
        self._note_stall()
        self._stay_member()
        try:
            clock = self._synced_clock()
            if (adopted := self._owner.adopt()) is not None:
                self._cache.retain(adopted.same)
                self._republish(adopted.outbox, stop)
            self._reconcile(clock.now(), stop)
            wanted = self._owner.wanted(clock.now())
            timeout_s = 0.0 if wanted else self._timeout_s(clock.now())
            records = self._log.poll(timeout_s, self._limits.records, self._limits.bytes)
            fresh = self._owner.expected(records)
            if fresh or wanted:
                self._process(fresh, wanted, clock.now(), stop)
            elif self._unsettled:  # no next batch asks for it
                self._acknowledged(0.0)
            if timers := self._owner.due_timers(clock.now(), self._limits.timers):
                self._process((), timers, clock.now(), stop)
            self._owner.note_offsets()
            self._trouble = None if self._log.generation else "waiting to join the consumer group"
            metrics.HALTED.set(0)
        except Backpressure as error:
            self._pause(error, stop)
            self._owner.start_over()  # positions in the log are ahead of what was committed

    def _process(
        self, records: Sequence[Input], timers: Sequence[Timer], now: datetime, stop: threading.Event
    ) -> None:
        routes = route_all(self._handler, records)
        for topic, count in Counter(record.topic for record in records).items():
            metrics.RECORDS.labels(topic).inc(count)
        self._halved([*zip(records, routes, strict=True)], timers, now, stop)

    def _halved(
        self, records: Sequence[Routing], timers: Sequence[Timer], now: datetime, stop: threading.Event
    ) -> None:
        """Decide and commit. What cannot be stored is found by halves; the others are not held up by it."""
        try:
            self._settled(lambda: self._decide(records, timers, now), stop)
            return
        except DataError as error:
            log.warning(
                "batch_refused", records=len(records), timers=len(timers), error=str(error).partition("\n")[0]
            )
            fault = Poison("data_error", str(error))
        if len(records) + len(timers) == 1:
            self._refused(records, timers, fault, now, stop)
        elif records and timers:
            self._halved(records, (), now, stop)
            self._halved((), timers, now, stop)
        else:
            for part in (slice(None, half := max(len(records), len(timers)) // 2), slice(half, None)):
                self._halved(records[part], timers[part], now, stop)

    def _refused(
        self,
        records: Sequence[Routing],
        timers: Sequence[Timer],
        fault: Poison,
        now: datetime,
        stop: threading.Event,
    ) -> None:
        """The one record or timer that cannot be stored; nor, perhaps, can what its handler makes of that."""

        def given_up(*, marked: bool) -> Turn[S]:
            batch = self._batch([route for _, route in records], timers, now)
            for record, route in records:
                batch.poison(record, fault, route.key if marked and isinstance(route, Routed) else None)
            for timer in timers:
                batch.poison_timer(timer, fault) if marked else batch.postpone(timer)
            return batch.turn

        try:
            self._settled(lambda: given_up(marked=True), stop)
        except DataError as error:
            log.error("mark_refused", error=str(error).partition("\n")[0])
            self._settled(lambda: given_up(marked=False), stop)

    def _settled(self, decide: Callable[[], Turn[S]], stop: threading.Event) -> None:
        """Decide and commit, until the rows can be written as decided."""
        for _ in range(CONTENDED_MAX):
            try:
                self._commit(decide(), stop)
                return
            except Contended as contended:
                metrics.CONTENDED.inc()
                self._handler.contended(contended)
        raise Backpressure(f"the rows of a batch were refused {CONTENDED_MAX} times; others are writing them")

    def _decide(self, records: Sequence[Routing], timers: Sequence[Timer], now: datetime) -> Turn[S]:
        batch = self._batch([route for _, route in records], timers, now)
        for record, route in records:
            batch.feed(record, route)
        for timer in timers:
            batch.fire(timer)
        crash.reach("loop.decided")
        return batch.turn

    def _batch(
        self, routes: Iterable[Routed | Poison | None], timers: Iterable[Timer], now: datetime
    ) -> Batch[S]:
        self._handler.begin()
        return Batch(self._handler, self._cache.states(routes, timers), now)

    def _commit(self, turn: Turn[S], stop: threading.Event) -> None:
        """Settle, commit, produce. Indexes that are no longer ours are dropped and the rest goes on."""
        for part in turn.parts.values():
            part.out = [self._letters.fitted(record) for record in part.out]
        self._settle(stop)
        crash.reach("loop.settled")
        while turn.parts:
            self._owner.drop_lost(turn)
            try:
                self._write(turn)
                break
            except Fenced:
                metrics.FENCED.inc()
                if not self._owner.verify(self._store.numbers(tuple(turn.parts))):
                    raise  # a guard that refuses the rightful owner is a fault of ours: crash, and start over
            except Backpressure as error:
                self._pause(error, stop)
                if self._already_written(turn, stop):
                    break
        crash.reach("loop.committed")
        self._handler.committed()
        self._owner.committed(turn)
        self._cache.update(turn)
        self._tell(turn)
        self._produce([record for part in turn.parts.values() for record in part.out])
        metrics.BATCHES.inc()
        crash.reach("loop.produced")

    def _write(self, turn: Turn[S]) -> None:
        self._store.commit(
            self._owner.commits(turn),
            [state for part in turn.parts.values() for state in part.states.values()],
            [row for part in turn.parts.values() for row in part.rows],
            sorted(key for part in turn.parts.values() for key in part.wakes),
        )

    def _already_written(self, turn: Turn[S], stop: threading.Event) -> bool:
        """After a commit whose answer was lost: the batch numbers say whether it happened."""
        while True:
            try:
                numbers = self._store.numbers(tuple(turn.parts))
            except Backpressure as error:
                self._pause(error, stop)
                if stop.is_set():
                    raise
                continue
            self._owner.verify(numbers)
            self._owner.drop_lost(turn)
            return any(numbers[index][1] == self._owner.parts[index].batch_no + 1 for index in turn.parts)

    def _tell(self, turn: Turn[S]) -> None:
        """Nothing is given up without a line in the log."""
        for part in turn.parts.values():
            for record in filter(letters.is_letter, part.out):
                letters.note(record)
        for key, fault in turn.failed_timers:
            metrics.FAILED_TIMERS.inc()
            log.error("timer_failed", key=key, reason=fault.reason, error=str(fault).partition("\n")[0])

    def _produce(self, records: Sequence[Outgoing]) -> None:
        self._unsettled = tuple(records)
        self._log.produce(records)

    def _republish(self, records: Sequence[Outgoing], stop: threading.Event) -> None:
        """The outboxes of the former owners, whatever became of them; they may hold letters of any size."""
        self._settle(stop)
        self._produce([self._letters.fitted(record) for record in records])
        self._settle(stop)

    def _reconcile(self, now: datetime, stop: threading.Event) -> None:
        """Ask again for what only a lost log knew of, one commit per index."""
        for index, lost in self._owner.lost_topics().items():
            log.warning("log_lost", index=index, topics=sorted(lost))
            turn: Turn[S] = Turn()
            share = turn.part(index)
            for row in self._store.states_of(index):
                if row.body is not None:
                    share.out.extend(
                        self._handler.reconcile(self._handler.decode(row.key, row.body), lost, now)
                    )
            self._commit(turn, stop)

    def _settle(self, stop: threading.Event, deadline_s: float | None = None) -> None:
        """Until the former batch is acknowledged; refused records are produced again, the whole batch."""
        started = time.monotonic()
        unanswered = 0
        while self._unsettled:
            try:
                if self._acknowledged(0.5):
                    return
                unanswered += 1
                if unanswered > UNANSWERED_MAX:
                    raise RuntimeError("the producer is stuck: a batch was neither acknowledged nor refused")
                self._log.idle(0)
                self._turned_at = time.monotonic()
            except Backpressure as error:
                unanswered = 0
                self._pause(error, stop)
            if deadline_s is not None and time.monotonic() - started > deadline_s:
                return
            if stop.is_set() and deadline_s is None:
                raise Backpressure(
                    "stopping while the broker does not acknowledge; the outbox keeps the batch"
                )

    def _stay_member(self) -> None:
        """Replace a client that is out of its group for too long, and if that does not help end the process.

        Raises OutOfGroup.
        """
        match self._vigil.look(time.monotonic(), self._owner.unread_s()):
            case Verdict.REJOIN:
                log.warning("rejoins", reason=self._vigil.reason, indexes=sorted(self._owner.parts))
                metrics.REJOINS.inc()
                self._log.rejoin()
            case Verdict.END:
                raise OutOfGroup(f"{self._vigil.reason}, nor did a new client help; the process ends")
            case Verdict.STAY:
                pass

    def _acknowledged(self, timeout_s: float) -> bool:
        """Whether the former batch is. What was refused is produced again, or a dead letter instead of it."""
        try:
            try:
                done = self._log.settle(timeout_s)
            except Unsendable as error:
                self._unsettled = self._letters.instead(self._handler.name, error.refused)
                self._log.produce(self._unsettled)
                return False
        except Backpressure:
            self._log.produce(self._unsettled)
            raise
        if done:
            self._unsettled = ()
        return done

    def _pause(self, error: Exception, stop: threading.Event) -> None:
        """Stay in the group, take nothing, say that we are not ready."""
        if isinstance(error, Halted) and self._trouble != str(error):
            log.error("halted", reason=str(error))
            metrics.HALTED.set(1)
        elif self._trouble is None:
            log.warning("paused", error=str(error))
            metrics.PAUSES.inc()
        self._trouble = str(error)
        self._log.idle(0.2)
        stop.wait(0.3)
        self._turned_at = time.monotonic()

    def _synced_clock(self) -> RemoteClock:
        if self._clock is None:
            self._clock = RemoteClock(self._store.now)
        self._clock.resync_if_due()
        return self._clock

    def _note_stall(self) -> None:
        now = time.monotonic()
        if now - self._turned_at > self._limits.stall_s:
            self._owner.stalled()
        self._turned_at = now

    def _timeout_s(self, now: datetime) -> float:
        """Until the next timer, at most one idle period."""
        due = self._owner.next_instant(now)
        if due is None:
            return self._limits.idle_s
        return min(self._limits.idle_s, max(0.0, (due - now) / timedelta(seconds=1)))
