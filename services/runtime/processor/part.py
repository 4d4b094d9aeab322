"""What the loop keeps in memory for one index it owns."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime


class Timers:
    """The earliest due states first. A state has one timer: setting it anew forgets the former one."""

    def __init__(self, due: Mapping[str, datetime]) -> None:
        """`due`: key -> instant."""
        self._due = dict(due)
        self._heap = [(instant, key) for key, instant in due.items()]
        heapq.heapify(self._heap)

    def set(self, key: str, instant: datetime | None) -> None:
        """Give a state its timer, or take it away."""
        if instant is None:
            self._due.pop(key, None)
        elif self._due.get(key) != instant:
            self._due[key] = instant
            heapq.heappush(self._heap, (instant, key))

    def next(self) -> datetime | None:
        """The earliest instant."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, until: datetime, at_most: int) -> Iterator[str]:
        """Keys due by `until`, earliest first. They stay set until `set` says otherwise."""
        found: list[tuple[datetime, str]] = []
        while len(found) < at_most and (instant := self.next()) is not None and instant <= until:
            found.append(heapq.heappop(self._heap))
            yield found[-1][1]
        for entry in found:
            heapq.heappush(self._heap, entry)


@dataclass(frozen=True, slots=True)
class Barrier:
    """Timers due by `instant` are judged once every input was read up to `ends`: what was on its way by then
    has been heard, so an outage of ours is never taken for the silence of a worker."""

    instant: datetime
    ends: Mapping[str, int]


@dataclass(slots=True)
class Part:
    """An owned index: the guard's numbers, how far each topic was committed, and its timers."""

    index: int
    epoch: int
    batch_no: int
    topic_ids: dict[str, str]
    positions: dict[str, int]
    timers: Timers
    caught_up_at: datetime | None = None
    barrier: Barrier | None = None
    noted: dict[str, int] = field(default_factory=dict)
