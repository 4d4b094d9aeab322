"""Who holds the permits of a limit and who waits for one; what a batch wants of them is settled here.

A release gives the permit to the oldest waiter there and then, so nobody who comes later can take it. What a
batch decided on may have changed before its turn came to write. Then nothing is written, and the batch is
decided again knowing better: `refused` cannot take what they wanted to take, `opened` need not wait.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from msgspec import Struct

What = Literal["take", "wait", "release"]
Claim = tuple[str, str]
"""A limit's key and an execution."""


class Want(Struct, frozen=True, gc=False):
    """What an execution wants of a limit; `since` is when it began to wait, `max` its limit."""

    what: What
    key: str
    execution_id: str
    max: int
    since: datetime


@dataclass(slots=True)
class Book:
    """One limit: who holds a permit; who waits, with since when and their `max`, among them the oldest."""

    holders: set[str] = field(default_factory=set)
    waiters: dict[str, tuple[datetime, int]] = field(default_factory=dict)

    def oldest(self) -> str | None:
        """The first in the line."""
        return min(self.waiters, key=lambda id: (self.waiters[id][0], id), default=None)


@dataclass(slots=True)
class Settled:
    """What came of it: the difference to write, executions that were given a permit, and what went wrong."""

    taken: list[Claim] = field(default_factory=list)
    released: list[Claim] = field(default_factory=list)
    waiting: list[Want] = field(default_factory=list)
    waiting_no_more: list[Claim] = field(default_factory=list)
    woken: list[str] = field(default_factory=list)
    refused: set[Claim] = field(default_factory=set)
    opened: set[Claim] = field(default_factory=set)


def last_of_each(wants: Iterable[Want]) -> list[Want]:
    """The last word of each execution on each limit: what it wanted before, in the same batch, never was."""
    found: dict[Claim, Want] = {}
    for want in wants:
        found.pop((want.key, want.execution_id), None)
        found[want.key, want.execution_id] = want
    return list(found.values())


def settle(books: dict[str, Book], wants: Iterable[Want]) -> Settled:
    """Releases first, then whoever waits longest, then who comes now. Changes the books."""
    settled = Settled()
    final = last_of_each(wants)
    for want in final:
        if want.what == "release":
            _release(books[want.key], want, settled)
    for key in dict.fromkeys(want.key for want in final):
        _grant(key, books[key], settled)
    for want in final:
        if want.what == "take":
            _take(books[want.key], want, settled)
        elif want.what == "wait":
            _wait(books[want.key], want, settled)
    present = {want.execution_id for want in final}
    settled.woken = [id for id in settled.woken if id not in present]  # the batch itself goes on with those
    return settled


def _release(book: Book, want: Want, settled: Settled) -> None:
    claim = (want.key, want.execution_id)
    if want.execution_id in book.holders:
        book.holders.discard(want.execution_id)
        settled.released.append(claim)
    if book.waiters.pop(want.execution_id, None) is not None:
        settled.waiting_no_more.append(claim)


def _grant(key: str, book: Book, settled: Settled) -> None:
    while (oldest := book.oldest()) is not None and len(book.holders) < book.waiters[oldest][1]:
        del book.waiters[oldest]
        book.holders.add(oldest)
        settled.waiting_no_more.append((key, oldest))
        settled.taken.append((key, oldest))
        settled.woken.append(oldest)


def _take(book: Book, want: Want, settled: Settled) -> None:
    claim = (want.key, want.execution_id)
    if want.execution_id in book.holders:
        return
    if book.waiters or len(book.holders) >= want.max:
        settled.refused.add(claim)
        return
    book.holders.add(want.execution_id)
    settled.taken.append(claim)


def _wait(book: Book, want: Want, settled: Settled) -> None:
    if want.execution_id in book.waiters:
        return
    if want.execution_id in book.holders or (not book.waiters and len(book.holders) < want.max):
        settled.opened.add((want.key, want.execution_id))
        return
    book.waiters[want.execution_id] = (want.since, want.max)
    settled.waiting.append(want)
