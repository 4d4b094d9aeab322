"""The permits of limits as rows, and the writer that settles a batch's wants on them in its transaction."""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg2.extras import execute_values

from services.executor.core.permits import Book, Claim, Settled, Want, last_of_each, settle
from services.runtime.processor.types import Contended, Row

KIND = "permit"


class PermitsContended(Contended):
    """The batch is decided again: these executions cannot have their permit, or need not wait for it."""

    def __init__(self, settled: Settled) -> None:
        super().__init__(f"{len(settled.refused)} permits refused, {len(settled.opened)} opened")
        self.refused: frozenset[Claim] = frozenset(settled.refused)
        self.opened: frozenset[Claim] = frozenset(settled.opened)


def permit_rows(wants: Iterable[Want]) -> tuple[Row, ...]:
    """The wants as rows of a change."""
    return tuple(Row(KIND, {"want": want}) for want in wants)


def wants_of(rows: Iterable[Row]) -> list[Want]:
    """The wants in a batch's rows, the last word of each on each limit."""
    return last_of_each(row.values["want"] for row in rows if row.kind == KIND)


def settled_or_raise(books: dict[str, Book], wants: Iterable[Want]) -> Settled:
    """Raises PermitsContended when the wants cannot all be had."""
    settled = settle(books, wants)
    if settled.refused or settled.opened:
        raise PermitsContended(settled)
    return settled


def write(cursor: Any, rows: Sequence[Row]) -> None:
    """Settle the wants. Each limit is locked until the transaction ends, in the order of their keys.

    Whoever is given a permit here is made due. A row that another transaction is writing is passed over:
    if its execution waits, that transaction is about to look at the same limit, and finds the permit.
    """
    wants = wants_of(rows)
    if not wants:
        return
    books = _read(cursor, wants)
    settled = settled_or_raise(books, wants)
    _write(cursor, settled)
    if settled.woken:
        cursor.execute(
            "UPDATE executor.state SET due_at = clock_timestamp() WHERE key IN"
            " (SELECT key FROM executor.state WHERE key = ANY(%s) FOR UPDATE SKIP LOCKED)",
            (settled.woken,),
        )
        cursor.execute("NOTIFY executor_woken")


def _read(cursor: Any, wants: Sequence[Want]) -> dict[str, Book]:
    """The books as far as these wants need them: all holders, and of the waiters ours and the oldest."""
    books = {key: Book() for key in sorted({want.key for want in wants})}
    keys, ids = list(books), [want.execution_id for want in wants]
    cursor.execute(
        "SELECT pg_advisory_xact_lock(lock) FROM (SELECT DISTINCT hashtextextended(key, 0) AS lock"
        " FROM unnest(%s::text[]) AS key ORDER BY lock) AS locks",
        (keys,),
    )
    cursor.execute("SELECT key, execution_id FROM executor.permit WHERE key = ANY(%s)", (keys,))
    for key, id in cursor.fetchall():
        books[key].holders.add(id)
    cursor.execute(
        "SELECT w.key, w.execution_id, w.since, w.max FROM unnest(%s::text[]) AS wanted(key), LATERAL"
        " (SELECT * FROM executor.permit_waiter p WHERE p.key = wanted.key"
        " ORDER BY since, execution_id LIMIT %s) AS w"
        " UNION SELECT key, execution_id, since, max FROM executor.permit_waiter"
        " WHERE key = ANY(%s) AND execution_id = ANY(%s)",
        (keys, len(wants) + 1, keys, ids),
    )
    for key, id, since, most in cursor.fetchall():
        books[key].waiters[id] = (since, most)
    return books


def _write(cursor: Any, settled: Settled) -> None:
    for table, claims in (("permit", settled.released), ("permit_waiter", settled.waiting_no_more)):
        if claims:
            execute_values(
                cursor,
                f"DELETE FROM executor.{table} t USING (VALUES %s) AS gone(key, execution_id)"  # noqa: S608 our names
                " WHERE t.key = gone.key AND t.execution_id = gone.execution_id",
                claims,
            )
    if settled.taken:
        execute_values(cursor, "INSERT INTO executor.permit (key, execution_id) VALUES %s", settled.taken)
    if settled.waiting:
        waiting = [(want.key, want.execution_id, want.since, want.max) for want in settled.waiting]
        execute_values(
            cursor, "INSERT INTO executor.permit_waiter (key, execution_id, since, max) VALUES %s", waiting
        )
