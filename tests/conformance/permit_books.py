"""Permits in memory, as the database keeps them: the writer of a manager's rows on the memory body."""

from collections.abc import Callable, Sequence
from copy import deepcopy

from services.executor.core.permits import Book
from services.executor.permits import settled_or_raise, wants_of
from services.runtime.memory.store import MemoryStore
from services.runtime.processor.types import Row

Books = dict[str, Book]


def writer(books: Books) -> Callable[[MemoryStore, Sequence[Row]], None]:
    """Several managers share the books, as they share a database."""

    def write(store: MemoryStore, rows: Sequence[Row]) -> None:
        wants = wants_of(rows)
        if not wants:
            return
        known = {want.key: deepcopy(books.get(want.key, Book())) for want in wants}
        settled = settled_or_raise(known, wants)
        books.update(known)
        store.wake(settled.woken)

    return write
