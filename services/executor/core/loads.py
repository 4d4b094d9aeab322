"""What an execution has out and what waits, lane by lane: all that the manager keeps in memory of it.

It goes into a column beside the state (Change.memo), so that whoever takes an index over reads no states.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from services.contracts.commands import CALL_KINDS, LONG_KINDS
from services.executor.core.dispatch import Load, Waiter
from services.executor.core.execution import Execution, Step

LANES = ("short", "long", "calls")
SHORT, LONG, CALLS = range(len(LANES))
_NOTHING: Load = Load(0)


class _Memo(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Attempts that are out and since when another waits, of each lane."""

    tenant: str
    priority: int
    lanes: tuple[tuple[int, datetime | None], ...]


_DECODER = msgspec.msgpack.Decoder(_Memo)


def lane_of(kind: str) -> int:
    """The place in LANES of a kind of step."""
    if kind in CALL_KINDS:
        return CALLS
    return LONG if kind in LONG_KINDS else SHORT


def memo(state: Execution) -> bytes | None:
    """What is to be remembered of an execution; None: it has nothing out, and nothing waits for room."""
    found = loads(state)
    if not any(found):
        return None
    waits = next((load.waits for load in found if load is not None and load.waits is not None), None)
    lanes = tuple(
        (load.out, load.waits.since if load.waits is not None else None) if load is not None else (0, None)
        for load in found
    )
    return msgspec.msgpack.encode(_Memo(state.tenant, waits.priority if waits is not None else 1, lanes))


def remembered(key: str, kept: bytes) -> tuple[str, list[Load | None]]:
    """The tenant and the loads that a memo tells of."""
    told = _DECODER.decode(kept)
    tenant = sys.intern(told.tenant)  # one text for half a million waiters
    loads = [
        Load(out, Waiter(key, tenant, told.priority, since) if since is not None else None)
        if out or since is not None
        else None
        for out, since in told.lanes
    ]
    return tenant, loads + [None] * (len(LANES) - len(loads))  # of a version that knew fewer lanes


def loads(state: Execution) -> list[Load | None]:
    """What an execution has in each lane, as it stands."""
    out = outs(state)
    found: list[Load | None] = [Load(count) if count else None for count in out]
    if kept_back(state):
        return found
    for _, step, since in queued(state):
        lane = lane_of(step.plan.kind)
        load = found[lane] or _NOTHING
        if load.waits is None or since < load.waits.since:
            priority = state.request.priority if state.request is not None else 1
            waiter = Waiter(state.execution_id, state.tenant, priority, since)
            found[lane] = Load(out[lane], waiter)
    return found


def kept_back(state: Execution) -> bool:
    """Whether it waits for something else than room: a permit, or to be resumed."""
    return state.awaits is not None or (state.paused and not state.status.terminal)


def queued(state: Execution) -> Iterator[tuple[int, Step, datetime]]:
    """Units with an attempt that nobody was told of, each with its place and since when."""
    first = len(state.steps) if state.status.terminal else 0
    for index, step in enumerate(_units(state), first):
        if step.queued_since is not None and step.asked > step.closed:
            yield index, step, step.queued_since


def outs(state: Execution) -> list[int]:
    """How many attempts are out in each lane."""
    out = [0] * len(LANES)
    for step in _units(state):
        if step.asked > step.closed and step.queued_since is None:
            out[lane_of(step.plan.kind)] += 1
    return out


def _units(state: Execution) -> Sequence[Step]:
    """What may be out: of an execution that has ended, only actions."""
    if state.status.terminal:
        return state.hooks
    return (*state.steps, *state.hooks) if state.hooks else state.steps
