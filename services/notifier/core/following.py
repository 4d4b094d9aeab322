"""What the notifier remembers of an execution that has listeners, from its acceptance to its end."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.contracts.events import TERMINAL, Event, ExecutionAccepted, type_of
from services.notifier.core.matching import Delivery, Listener, listeners_of, match

PARKED_MAX = 200
GAP = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Following:
    """`last` is the highest sequence seen; `parked` are later events, with their bytes, behind a gap.

    The log keeps order within an execution, so a gap is an event that became a dead letter, or a fault of
    ours. It is given until `gap_until` to close; then what is parked goes out: late is better than never,
    and the receiver sees the sequence.
    """

    last: int
    listeners: tuple[Listener, ...]
    parked: tuple[tuple[int, bytes], ...] = ()
    gap_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The state after an event, and what is owed because of it. `following` None: nothing to remember."""

    following: Following | None
    deliveries: tuple[Delivery, ...] = ()


def advance(following: Following | None, event: Event) -> Step:
    """Take the next event of an execution. The caller has settled that it is the next one, or the first.

    Executions without listeners have no state at all, so their events end here.
    """
    if isinstance(event, ExecutionAccepted) and following is None:
        listeners = listeners_of(event)
        following = Following(0, listeners) if listeners else None
    if following is None:
        return Step(None)
    deliveries = match(event, following.listeners)
    if type_of(event) in TERMINAL:
        return Step(None, deliveries)
    return Step(replace(following, last=event.sequence), deliveries)


def park(following: Following, sequence: int, value: bytes, now: datetime) -> Following:
    """Keep an event that came before its turn; known ones are not kept twice."""
    if any(sequence == known for known, _ in following.parked):
        return following
    parked = tuple(sorted((*following.parked, (sequence, value))))
    return replace(following, parked=parked, gap_until=following.gap_until or now + GAP)


def skip(following: Following, sequence: int) -> Following:
    """Count an event as seen that can never be read."""
    return replace(following, last=max(following.last, sequence))
