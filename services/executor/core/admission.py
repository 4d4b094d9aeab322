"""Which of the steps that a decision asks for go out now, and which are queued: for room, or for a permit.

An action goes out with its step's turn, and a further attempt with that of the first: only a step's first
attempt waits for room. A queued step has its attempt, but nobody was told of it: `Step.queued_since` is set,
no event tells of it, and its queue timeout runs. It goes out when its execution is chosen at the desk
(core/dispatch.py), after it has the permits of its limits (core/limits.py).
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from services.contracts.partition import partition_of
from services.contracts.status import Status
from services.contracts.topics import LOOP_PARTITIONS
from services.executor.core import limits
from services.executor.core.dispatch import Desk
from services.executor.core.execution import Execution, Step
from services.executor.core.loads import CALLS, LANES, kept_back, lane_of, outs, queued, remembered
from services.executor.core.pace import Pace
from services.executor.core.permits import Claim, Want
from services.executor.core.story import Story, request_for


class Windows(NamedTuple):
    """How many steps of an index may be out at most, running ones included: short ones, long ones, calls, and
    calls of one tenant. Calls take no lane that could be paced; what bounds them is that a tenant whose
    receivers hang leaves room to others."""

    short: int = 256
    long: int = 16
    calls: int = 128
    calls_per_tenant: int = 16

    def desks(self) -> tuple[Desk, ...]:
        """One for each of LANES."""
        calls = Desk(Pace(self.calls, self.calls), share=self.calls_per_tenant)
        return Desk(Pace(self.short)), Desk(Pace(self.long)), calls


DEFAULT = Windows()


class Admission:
    """The desks of the indexes that are ours, and what this manager was told of permits lately."""

    def __init__(self, windows: Windows) -> None:
        """`windows` bound the steps that are out, for each index."""
        self._windows = windows
        self._desks: dict[int, tuple[Desk, ...]] = {}
        self._heard: list[tuple[Desk, float]] = []
        self._full: set[str] = set()
        self._refused: set[Claim] = set()
        self._opened: set[Claim] = set()

    # ------------------------------------------------------------ what was committed

    def retain(self, indexes: Collection[int]) -> None:
        """Forget all indexes but these."""
        self._desks = {index: desks for index, desks in self._desks.items() if index in indexes}

    def remember(self, index: int, key: str, memo: bytes | None) -> None:
        """What was committed of an execution (core/loads.py)."""
        if memo is None:
            for desk in self._at(index):
                desk.forget(key)
            return
        tenant, loads = remembered(key, memo)
        for desk, load in zip(self._at(index), loads, strict=True):
            desk.keep(key, tenant, load)

    def begin(self) -> None:
        """A batch is decided, perhaps once more."""
        self._heard.clear()
        for desks in self._desks.values():
            for desk in desks:
                desk.begin()

    def contended(self, refused: Iterable[Claim], opened: Iterable[Claim]) -> None:
        """The batch wanted what others have, or need not have waited; it will be decided again."""
        for claim in refused:
            self._refused.add(claim)
            self._opened.discard(claim)
            self._full.add(claim[0])
        for claim in opened:
            self._opened.add(claim)
            self._refused.discard(claim)
            self._full.discard(claim[0])

    def committed(self) -> None:
        """A batch is true now."""
        for desk, waited_s in self._heard:
            desk.heard(waited_s)
        self._refused.clear()
        self._opened.clear()

    def wanted(self, now: datetime) -> list[tuple[str, int]]:
        """Executions whose turn it is, each with its index."""
        return [
            (key, index) for index, desks in self._desks.items() for desk in desks for key in desk.choose(now)
        ]

    # ------------------------------------------------------------ decisions

    def heard(self, execution_id: str, kind: str, waited_s: float) -> None:
        """A step of this kind began, after it had waited so long for a worker's lane."""
        if (lane := lane_of(kind)) != CALLS:
            self._heard.append((self._of(execution_id)[lane], waited_s))

    def admit(self, story: Story, before: Execution | None, *, eager: bool = False) -> list[Want]:
        """Queue what may not go out yet; what the execution wants of its limits.

        `eager` asks for a permit again although its limit was full a moment ago.
        """
        wants, permitted = self._permits(story, eager=eager)
        desks = self._of(story.execution_id)
        _count(desks, before, story, len(story.requests))
        kept = []
        for order in story.requests:
            desk = desks[lane_of(order.kind)]
            index = story.execution.current_step(order.attempt_id)
            if permitted and (desk.has_room(story.tenant) or _had_its_turn(story, index)):
                desk.spent[story.tenant] += 1
                kept.append(order)
            else:
                _queue(story, index)
                if permitted:
                    desk.queued.add(story.tenant)
        story.requests[:] = kept
        if permitted and before is not None and (before.awaits is not None or before.paused):
            self._unblocked(story, desks)
        return wants

    def serve(self, story: Story) -> None:
        """It was chosen: in each lane where it was, the step that waits longest goes out.

        The same batch may have paused it in between.
        """
        before, desks = story.execution, self._of(story.execution_id)
        if kept_back(before):
            return
        for lane, desk in enumerate(desks):
            if desk.chosen(story.execution_id) and desk.free > 0:
                waiting = [
                    (since, index) for index, step, since in queued(before) if lane_of(step.plan.kind) == lane
                ]
                if waiting:
                    _send(story, min(waiting)[1])
        _count(desks, before, story, 0)

    def _unblocked(self, story: Story, desks: Sequence[Desk]) -> None:
        """What kept its steps back is gone: they go out, or wait for room like any other."""
        if story.execution.paused or story.execution.status.terminal:
            return
        for index, step, _ in list(queued(story.execution)):
            desk = desks[lane_of(step.plan.kind)]
            if desk.has_room(story.tenant) or had_its_turn(step):
                desk.spent[story.tenant] += 1
                _send(story, index)
            else:
                desk.queued.add(story.tenant)

    def _permits(self, story: Story, *, eager: bool) -> tuple[list[Want], bool]:
        """What it wants of its limits, and whether it then has every permit that it needs."""
        state = story.execution
        wanted = limits.of(state.request)
        if not wanted:
            return [], True
        if state.status.terminal:
            return self._given_back(story, wanted), True
        since = [since for _, _, since in queued(state)]
        if (since or story.requests) and not state.paused:
            return self._taken(story, wanted, min(since, default=story.now), eager=eager)
        if state.status is Status.WAITING and not any(outs(state)):
            return self._given_back(story, limits.given_back(wanted, state.permits)), False
        return [], state.awaits is None

    def _taken(
        self, story: Story, wanted: Sequence[limits.Limit], since: datetime, *, eager: bool
    ) -> tuple[list[Want], bool]:
        """One permit after the other, up to the first that cannot be had."""
        wants: list[Want] = []
        held = list(story.execution.permits)
        awaits = None
        for limit in wanted:
            if limit.key in held:
                continue
            claim = (limit.key, story.execution_id)
            full = limit.key in self._full and not eager and claim not in self._opened
            if full or claim in self._refused:
                wants.append(Want("wait", *claim, limit.max, since))
                awaits = limit.key
                break
            wants.append(Want("take", *claim, limit.max, since))
            held.append(limit.key)
        story.state = replace(story.execution, permits=tuple(held), awaits=awaits)
        return wants, awaits is None

    def _given_back(self, story: Story, wanted: Iterable[limits.Limit]) -> list[Want]:
        state = story.execution
        back = [limit for limit in wanted if limit.key in state.permits or limit.key == state.awaits]
        if not back:
            return []
        keys = {limit.key for limit in back}
        self._full -= keys
        kept = tuple(key for key in state.permits if key not in keys)
        story.state = replace(state, permits=kept, awaits=None if state.awaits in keys else state.awaits)
        return [Want("release", limit.key, state.execution_id, limit.max, story.now) for limit in back]

    def _of(self, execution_id: str) -> tuple[Desk, ...]:
        return self._at(partition_of(execution_id.encode(), LOOP_PARTITIONS))

    def _at(self, index: int) -> tuple[Desk, ...]:
        found = self._desks.get(index)
        if found is None:
            found = self._desks[index] = self._windows.desks()
        return found


def had_its_turn(step: Step) -> bool:
    """Whether it goes out without room: an action, which must not outlive its execution in a queue, or
    another attempt of what was out before."""
    return step.hook is not None or step.asked_since != step.asked_at


def waits_for(state: Execution) -> str | None:
    """The mark by which a manager that gives back a permit makes the one due who gets it."""
    return None if state.awaits is None else f"permit:{state.awaits}"


def _count(desks: Sequence[Desk], before: Execution | None, story: Story, fresh: int) -> None:
    """How many more are out than before, without those that are only asked for by this decision."""
    now = outs(story.execution)
    held = outs(before) if before is not None else [0] * len(LANES)
    for lane, desk in enumerate(desks):
        asked = sum(lane_of(order.kind) == lane for order in story.requests) if fresh else 0
        if change := now[lane] - held[lane] - asked:
            desk.spent[story.tenant] += change


def _had_its_turn(story: Story, index: int | None) -> bool:
    return index is not None and had_its_turn(story.execution.unit(index))


def _queue(story: Story, index: int | None) -> None:
    if index is not None:
        story.change(index, queued_since=story.now)


def _send(story: Story, index: int) -> None:
    story.change(index, queued_since=None, ordered_at=story.now)
    story.requests.append(request_for(story.execution, index, story.now))
