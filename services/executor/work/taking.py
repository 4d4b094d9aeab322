"""Taking steps off a queue. Two paths, and never another order on either:

- unclaimed: run, publish the outcome, wait for its acknowledgement, commit. A process that dies on the way
  leaves the record to the next owner of the partition.
- claimed: publish a claim, wait for its acknowledgement, commit, run. A process that dies after the commit
  leaves a lease that expires: an attempt that is counted.

A step that kills its process must not do so for ever. So whatever a former owner may have died of is claimed
first, and so are later attempts and long kinds; a step that has run for 2 s is claimed while it runs. The
fence lets only one take of an attempt count, whichever path it came.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.contracts.codec import Codec
from services.contracts.commands import LONG_KINDS, ORDER_EXPIRED, StepRequested
from services.contracts.envelope import Outgoing
from services.executor.steps.outcome import Retry
from services.executor.work.control import Control, must_ask
from services.executor.work.hands import Hands
from services.executor.work.partition import Partition, Waiting
from services.executor.work.queue import SILENT_S, Queue
from services.executor.work.reporter import Reporter
from services.executor.work.take import TAKE_ID_DIGITS, Take
from services.runtime import crash, entropy, telemetry
from services.runtime.settings import Kafka

SHORT, LONG = "step.requested", "step.requested.long"
GROUPS = {SHORT: "millstream-worker", LONG: "millstream-worker-long"}
POLL_S = 0.1
HELD_POLL_S = 0.005
FULL_WAIT_S = 0.25
FULL_S = 1.0
AHEAD = 1000
"""Takes that may wait for a lane, so that the lanes do not wait for the broker."""
LIVE_S = 60.0
FRESH_S = 10.0
STOP_PATIENCE_S = 5.0
SETTLE_PATIENCE_S = 4.0

log = telemetry.get_logger()


class Taking:
    """The loop of one queue, on a thread of its own."""

    def __init__(
        self,
        topic: str,
        kafka: Kafka,
        worker: str,
        codec: Codec,
        reporter: Reporter,
        hands: Hands,
        control: Control,
        stop: threading.Event,
    ) -> None:
        self._worker = worker
        self._reporter = reporter
        self._hands = hands
        self._works, self._lanes, self._calls = hands.works, hands.lanes, hands.calls
        self._control = control
        self._stop = stop
        self._full = False
        self._turned_at = self._moved_at = time.monotonic()
        self._queue = Queue(kafka, topic, GROUPS[topic], worker, codec, hands.withdraw)
        hands.works.settle = self._queue.settle

    def run(self) -> None:
        """Take until asked to stop, then leave the group."""
        try:
            while not self._stop.is_set() and not self._control.caught_up.wait(POLL_S):
                self._moved_at = time.monotonic()
            while not self._stop.is_set():
                self._turned_at = self._moved_at = time.monotonic()
                self._turn()
        finally:
            # Steps that end in this moment need not run again elsewhere; those that go on get their claim.
            self._hands.withdraw()
            self._works.settled(SETTLE_PATIENCE_S)
            self._queue.close()

    def live(self) -> tuple[bool, str]:
        """Whether the loop moves; it does while it waits for a broker that is away."""
        age_s = time.monotonic() - self._moved_at
        return age_s < LIVE_S, f"last sign of life {age_s:.1f} s ago"

    def ready(self) -> tuple[bool, str]:
        """Broker reachable, joined (an empty assignment counts), last turn fresh; full counts as ready."""
        if not self._queue.joined and not self._full:
            return False, f"not joined to group {self._queue.group} yet"
        if (trouble := self._queue.vigil.trouble) is not None and not self._full:
            return False, trouble
        silence_s = time.monotonic() - self._queue.heard_at
        if silence_s > SILENT_S:
            return False, f"no broker has answered for {silence_s:.0f} s"
        age_s = time.monotonic() - self._turned_at
        return age_s < FRESH_S, f"last turn {age_s:.1f} s ago"

    def _turn(self) -> None:
        """Without a lane for a moment: take no more, but go on serving the group. Without one for longer:
        leave it, for another member may have one."""
        if self._lanes.full_for_s() >= FULL_S:
            self._leave()
        if self._full and not self._lanes.wait_idle(FULL_WAIT_S):
            self._queue.read(0)
            return
        self._full = False
        self._queue.join()
        self._queue.stay_member()
        if self._queue.pace(stuck=self._lanes.still_for_s() >= FULL_WAIT_S):
            busy = self._queue.held() or self._lanes.queued()
            self._queue.read(HELD_POLL_S if busy else POLL_S)
        began = self._begin()
        self._lanes.hurry()
        if not began and self._queue.held():
            self._lanes.wait_idle(HELD_POLL_S) if not self._lanes.queued() else self._stop.wait(HELD_POLL_S)
        self._queue.commit_if_due()

    def _leave(self) -> None:
        if not self._full:
            log.info("full", group=self._queue.group)
            self._full = True
            self._hands.withdraw()
            self._queue.leave()

    def _begin(self) -> bool:
        """Start what there is room for. Whether anything began."""
        turn = Turn(AHEAD - self._lanes.queued(), self._lanes.idle())
        for partition in (*self._queue.partitions.values(),):
            while partition.waiting and partition.room > 0:
                record = partition.waiting[0]
                if isinstance(record.work, Outgoing):
                    self._bury(partition, record.work)
                elif (place := self._place(turn, partition, record, record.work)) is not None:
                    place.extend(self._taken(partition, record.work, record.came_at, turn.chosen))
                else:
                    break
            if partition.waiting and partition.room <= 0:
                self._calls.claim(partition.number)
        self._lanes.start(turn.unclaimed, claimed=False)
        self._calls.start(turn.calls, claimed=False)
        if turn.claimed or turn.claimed_calls:
            self._claim(turn)
        return turn.began

    def _place(
        self, turn: "Turn", partition: Partition, record: Waiting, request: StepRequested
    ) -> list[Take] | None:
        """Where its take belongs; None: there is no room. Of what must be claimed first, lanes get only as
        much as runs at once: all that runs beside a step which kills the process is counted an attempt with
        it. Calls wait for slots of their own."""
        claimed = _claimed_first(partition, record, request)
        if self._calls.takes(request.kind):
            return turn.claimed_calls if claimed else turn.calls
        if claimed:
            return turn.claimed if len(turn.claimed) < turn.idle else None
        return turn.unclaimed if len(turn.unclaimed) < turn.room else None

    def _bury(self, partition: Partition, letter: Outgoing) -> None:
        place = partition.take()
        self._reporter.bury(letter, lambda: self._queue.settle(place))

    def _taken(
        self, partition: Partition, request: StepRequested, came_at: float, chosen: set[str]
    ) -> Sequence[Take]:
        """The take, or nothing where there is nothing to run; `chosen` are the attempts of this very turn."""
        place = partition.take()
        take = Take(request, entropy.fresh_id()[:TAKE_ID_DIGITS], self._worker, place, came_at)
        known = self._works.known(request.attempt_id)
        if known is not None or request.attempt_id in chosen:
            # The same record, which came again because its commit fell into a rebalance, is settled by our
            # take unless that is claimed. Another record of the attempt, as a manager that restarts may
            # publish, nobody else would settle; the first one stays for whoever comes after us.
            if known is None or known.claimed or known.take.place != place:
                self._queue.settle(place)
            return ()
        if self._revoked(take):
            self._queue.settle(place)
            return ()
        if self._reporter.repeat(request.attempt_id, lambda: self._queue.settle(place)):
            return ()
        if must_ask(request.requested_at, self._reporter.now()):
            self._ask(take)
            return ()
        chosen.add(request.attempt_id)
        return (take,)

    def _ask(self, take: Take) -> None:
        """Whether it is still wanted: if so, the manager orders anew; if not, this tells it nothing new."""
        request = take.request
        log.info("order_expired", execution=request.execution_id, step=request.step)
        message = f"the order of {request.requested_at.isoformat()} is older than revocations are kept"
        asked = Retry(ORDER_EXPIRED, message)
        self._reporter.finish(take, take.came_at, asked, lambda: self._queue.settle(take.place))

    def _claim(self, turn: "Turn") -> None:
        takes = [*turn.claimed, *turn.claimed_calls]
        now = time.monotonic()
        claims = [self._reporter.claim(take, now) for take in takes]
        if not self._reporter.acknowledged(claims, self._giving_up):
            return  # stopping while the broker is away: the records stay in the queue
        crash.reach("worker.claim")
        for take in takes:
            self._queue.settle(take.place)
        self._queue.commit()
        # Until they start, nobody knows anything that a revocation could stop.
        self._lanes.start([take for take in turn.claimed if not self._revoked(take)], claimed=True)
        self._calls.start([take for take in turn.claimed_calls if not self._revoked(take)], claimed=True)

    def _revoked(self, take: Take) -> bool:
        reason, request = self._control.revoked(take), take.request
        if reason is not None:
            log.info("step_revoked", execution=request.execution_id, step=request.step, reason=reason)
        return reason is not None

    def _giving_up(self) -> bool:
        """A claim that is on its way when we are asked to stop still gets its answer: a claim that nobody
        follows up would hold the attempt for a whole lease."""
        self._moved_at = time.monotonic()
        return self._stop.is_set() and self._moved_at - self._turned_at > STOP_PATIENCE_S


@dataclass(slots=True)
class Turn:
    """What one turn takes, and the room that it found in the lanes."""

    room: int
    idle: int
    unclaimed: list[Take] = field(default_factory=list)
    claimed: list[Take] = field(default_factory=list)
    calls: list[Take] = field(default_factory=list)
    claimed_calls: list[Take] = field(default_factory=list)
    chosen: set[str] = field(default_factory=set)

    @property
    def began(self) -> bool:
        """Whether it takes anything."""
        return bool(self.chosen)


def _claimed_first(partition: Partition, record: Waiting, request: StepRequested) -> bool:
    return request.kind in LONG_KINDS or request.attempt > 1 or partition.may_have_killed(record.offset)
