"""States in memory: those of own indexes, changed only after their commit."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from services.runtime.processor.batch import Timer, Turn
from services.runtime.processor.handler import Handler
from services.runtime.processor.store import Store
from services.runtime.processor.types import Poison, Routed

S = TypeVar("S")

STATES_MAX = 100_000


class Cache(Generic[S]):
    """Least recently used states go first. Lookups may belong to another owner and are never kept."""

    def __init__(self, handler: Handler[S], store: Store) -> None:
        """`handler` decodes what `store` loads."""
        self._handler, self._store = handler, store
        self._states: OrderedDict[str, S] = OrderedDict()

    def states(
        self, routes: Iterable[Routed | Poison | None], timers: Iterable[Timer]
    ) -> Mapping[str, S | None]:
        """Every state that a batch needs: a SELECT for own keys and lookups, one for the timers' lookups."""
        routed = [route for route in routes if isinstance(route, Routed)]
        fired = [timer.key for timer in timers]
        foreign = {key for route in routed for key in route.lookups}
        found = self._load([*(route.key for route in routed), *fired], foreign)
        later = {
            key for own in fired if (state := found.get(own)) for key in self._handler.lookups(own, state)
        }
        if later:
            found |= self._load((), later)
        return found

    def update(self, turn: Turn[S]) -> None:
        """Take over what a commit has made true."""
        for part in turn.parts.values():
            for key in part.states:
                state = turn.states[key]
                if state is None:
                    self._states.pop(key, None)
                else:
                    self._states[key] = state
                    self._states.move_to_end(key)
        while len(self._states) > STATES_MAX:
            self._states.popitem(last=False)

    def forget(self) -> None:
        """Drop everything: ownership has changed."""
        self._states.clear()

    def _load(self, own: Iterable[str], foreign: Iterable[str]) -> dict[str, S | None]:
        known = {key: self._states[key] for key in own if key in self._states}
        missing = {key for key in own if key not in known} | set(foreign)
        rows = self._store.load(missing)
        loaded = {
            key: self._handler.decode(key, row.body) for key, row in rows.items() if row.body is not None
        }
        return {**dict.fromkeys(missing), **known, **loaded}
