"""States in memory: those of own indexes, changed only after their commit."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.runtime.processor.batch import Timer, Turn
from services.runtime.processor.handler import Handler
from services.runtime.processor.store import Store
from services.runtime.processor.types import Poison, Routed

S = TypeVar("S")

CACHE_BYTES = 128 << 20
IN_MEMORY = 4
"""A state takes about so many times its encoded bytes as objects."""
ENTRY_BYTES = 500
"""And its place in here, with its key."""


@dataclass(slots=True)
class _Entry(Generic[S]):
    state: S
    part: int
    bytes: int


class Cache(Generic[S]):
    """Least recently used states go first. Lookups may belong to another owner and are never kept."""

    def __init__(self, handler: Handler[S], store: Store, bytes_max: int) -> None:
        """`handler` decodes what `store` loads; `bytes_max` bounds the memory that the states take, which is
        estimated from their encoded bytes."""
        self._handler, self._store, self._bytes_max = handler, store, bytes_max
        self._entries: OrderedDict[str, _Entry[S]] = OrderedDict()
        self.bytes = 0

    def states(
        self, routes: Iterable[Routed | Poison | None], timers: Iterable[Timer]
    ) -> Mapping[str, S | None]:
        """Every state that a batch needs: a SELECT for own keys and lookups, one for the timers' lookups."""
        routed = [route for route in routes if isinstance(route, Routed)]
        fired = [timer.key for timer in timers]
        foreign = {key for route in routed for key in route.lookups}
        found = self._load([*(route.key for route in routed), *fired], foreign)
        later = {key for own in fired if (state := found.get(own)) for key in self._lookups(own, state)}
        if later:
            found |= self._load((), later)
        return found

    def update(self, turn: Turn[S]) -> None:
        """Take over what a commit has made true."""
        for index, part in turn.parts.items():
            for key, row in part.states.items():
                self._drop(key)
                state = turn.states[key]
                if state is not None:
                    size = ENTRY_BYTES + IN_MEMORY * len(row.body or b"")
                    self._entries[key] = _Entry(state, index, size)
                    self.bytes += size
        while self.bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))

    def retain(self, indexes: Collection[int]) -> None:
        """Drop what is not of these indexes: others have changed hands."""
        for key in [key for key, entry in self._entries.items() if entry.part not in indexes]:
            self._drop(key)

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.bytes

    def _lookups(self, key: str, state: S) -> Iterable[str]:
        try:
            return self._handler.lookups(key, state)
        except Exception:  # the batch asks again, and knows whose fault it is
            return ()

    def _load(self, own: Iterable[str], foreign: Iterable[str]) -> dict[str, S | None]:
        known = {key: self._entries[key].state for key in own if key in self._entries}
        missing = {key for key in own if key not in known} | set(foreign)
        rows = self._store.load(missing)
        loaded = {
            key: self._handler.decode(key, row.body) for key, row in rows.items() if row.body is not None
        }
        return {**dict.fromkeys(missing), **known, **loaded}
