"""The loop's store in PostgreSQL: one statement a batch, guarded by epoch and batch number."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg2

from services.runtime import crash, database
from services.runtime.processor.outbox import unpack
from services.runtime.processor.squeeze import restored, squeezed
from services.runtime.processor.tables import FENCED_STATE
from services.runtime.processor.types import (
    Backpressure,
    DataError,
    Fenced,
    Live,
    Owned,
    PartCommit,
    Row,
    StateRow,
)

WriteRows = Callable[[Any, Sequence[Row]], None]

STREAMED_ROWS = 5000


class PostgresStore:
    """One connection, used by the loop's thread alone; it reconnects when the former one was lost."""

    def __init__(self, url: str, schema: str, write_rows: WriteRows | None = None) -> None:
        """`write_rows(cursor, rows)` writes a batch's rows in its transaction, behind the guard; it may raise
        Contended."""
        self._url, self._schema, self._write_rows = url, schema, write_rows
        self._connection: database.Connection | None = None
        self._prepare_sql, self._commit_sql = _prepared(schema)

    def acquire(self, parts: Sequence[int]) -> Mapping[int, Owned]:
        """Bump epochs in one transaction, in index order, then read what the former owner left."""
        s = self._schema
        with self._transaction() as cursor:
            owned: dict[int, Owned] = {}
            for part in sorted(parts):
                cursor.execute(
                    f"INSERT INTO {s}.part_owner VALUES (%s, 1, 0) ON CONFLICT (part)"
                    f" DO UPDATE SET epoch = {s}.part_owner.epoch + 1 RETURNING epoch, batch_no",
                    (part,),
                )
                epoch, batch_no = cursor.fetchone()
                owned[part] = Owned(epoch, batch_no, offsets={})
            mine = (list(owned),)
            cursor.execute(
                f"SELECT part, topic, topic_id, next_offset FROM {s}.part_offset WHERE part = ANY(%s)", mine
            )
            for part, topic, topic_id, offset in cursor.fetchall():
                owned[part].offsets[topic] = (topic_id, offset)
            cursor.execute(f"SELECT part, records FROM {s}.part_outbox WHERE part = ANY(%s)", mine)
            for part, records in cursor.fetchall():
                owned[part].outbox = unpack(bytes(records))
        return owned

    def load(self, keys: Iterable[str]) -> Mapping[str, StateRow]:
        """One SELECT."""
        wanted = list(keys)
        if not wanted:
            return {}
        rows = self._rows(
            "SELECT key, part, body, due_at, waits_for FROM {s}.state WHERE key = ANY(%s)", (wanted,)
        )
        return {row.key: row for row in rows}

    def states_of(self, part: int) -> Iterable[StateRow]:
        """One cursor of the server's: used only when a log was lost."""
        sql = "SELECT key, part, body, due_at, waits_for FROM {s}.state WHERE part = %s"
        for key, of, body, due, waits in self._streamed(sql, (part,)):
            yield StateRow(key, of, restored(bytes(body)), due, waits)

    def live(self, parts: Sequence[int]) -> Iterable[Live]:
        """One cursor of the server's; bodies stay where they are."""
        sql = "SELECT part, key, due_at, memo FROM {s}.state WHERE part = ANY(%s) AND due_at IS NOT NULL"
        for part, key, due_at, memo in self._streamed(sql, (list(parts),)):
            yield Live(part, key, due_at, None if memo is None else bytes(memo))

    def woken(self) -> bool:
        """Notifications that have arrived; a new connection may have missed some and says so once."""
        connection = self._connection
        if connection is None or connection.closed:
            return False
        try:
            connection.poll()
        except psycopg2.Error:
            self._drop()
            return False
        woken = bool(connection.notifies)
        connection.notifies.clear()
        return woken

    def waiting(self, parts: Sequence[int]) -> Mapping[str, tuple[int, datetime]]:
        """States that were parked and have been woken: due, and still waiting for something."""
        with self._transaction() as cursor:
            cursor.execute(
                f"SELECT key, part, due_at FROM {self._schema}.state"
                " WHERE part = ANY(%s) AND waits_for IS NOT NULL AND due_at <= clock_timestamp()",
                (list(parts),),
            )
            return {key: (part, due_at) for key, part, due_at in cursor.fetchall()}

    def commit(
        self,
        parts: Sequence[PartCommit],
        states: Sequence[StateRow],
        rows: Sequence[Row],
        wakes: Sequence[str],
    ) -> None:
        """One autocommit statement; with rows or wakes, more statements behind it in one transaction."""
        arguments = _arguments(parts, states)
        if not rows and not wakes:
            with self._autocommit() as cursor:
                cursor.execute(self._commit_sql, arguments)
            return
        with self._transaction() as cursor:
            cursor.execute(self._commit_sql, arguments)
            if rows and self._write_rows is not None:
                try:
                    self._write_rows(cursor, rows)
                except ValueError as error:  # psycopg2's own refusal, before anything is sent
                    raise DataError(f"{type(error).__name__}: {error}") from error
            if wakes:
                cursor.execute(
                    f"UPDATE {self._schema}.state SET due_at = clock_timestamp()"
                    " WHERE waits_for = ANY(%s) AND NOT key = ANY(%s)",
                    (list(wakes), [row.key for row in states]),
                )
                cursor.execute(f"NOTIFY {self._schema}_woken")
            crash.reach("loop.commit")

    def numbers(self, parts: Sequence[int]) -> Mapping[int, tuple[int, int]]:
        """Read on a fresh look, after a commit whose answer was lost."""
        with self._autocommit() as cursor:
            cursor.execute(
                f"SELECT part, epoch, batch_no FROM {self._schema}.part_owner WHERE part = ANY(%s)",
                (list(parts),),
            )
            return {part: (epoch, batch_no) for part, epoch, batch_no in cursor.fetchall()}

    def now(self) -> datetime:
        """The database's clock."""
        with self._autocommit() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            instant: datetime = cursor.fetchone()[0]
            return instant

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _rows(self, sql: str, arguments: tuple[Any, ...]) -> list[StateRow]:
        with self._autocommit() as cursor:
            cursor.execute(sql.format(s=self._schema), arguments)
            return [
                StateRow(key, part, restored(bytes(body)), due, waits)
                for key, part, body, due, waits in cursor.fetchall()
            ]

    def _streamed(self, sql: str, arguments: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        with self._translated() as connection:
            connection.autocommit = False
            with connection, connection.cursor("streamed") as cursor:
                cursor.itersize = STREAMED_ROWS
                cursor.execute(sql.format(s=self._schema), arguments)
                yield from cursor

    @contextmanager
    def _autocommit(self) -> Any:
        with self._translated() as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor

    @contextmanager
    def _transaction(self) -> Any:
        with self._translated() as connection:
            connection.autocommit = False
            with connection, connection.cursor() as cursor:
                yield cursor

    @contextmanager
    def _translated(self) -> Any:
        """The connection; psycopg2's errors leave as the loop's three."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = database.connect(self._url, f"millstream-{self._schema}-loop")
                # A frozen process must not hold the rows that its successor needs.
                with self._connection, self._connection.cursor() as cursor:
                    cursor.execute(
                        f"SET idle_in_transaction_session_timeout = '5s'; LISTEN {self._schema}_woken"
                    )
                    cursor.execute(f"NOTIFY {self._schema}_woken")  # some may have come while nobody listened
                    cursor.execute(self._prepare_sql)
            yield self._connection
        except psycopg2.Error as error:
            if error.pgcode == FENCED_STATE:
                raise Fenced(str(error)) from error
            match database.classify(error):
                case database.Failure.BACKPRESSURE:
                    self._drop()
                    raise Backpressure(f"database: {type(error).__name__}: {error}".strip()) from error
                case database.Failure.DATA:
                    raise DataError(f"{type(error).__name__}: {error}".strip()) from error
                case database.Failure.OTHER:
                    raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


# Everything of a batch in one round trip. assert_owner raises, and so undoes all, when the guard let through
# fewer indexes than the batch has. Arrays come as ready literals: adapting lists costs as much as the SQL.
_COMMIT = """
WITH mine AS (
    SELECT * FROM unnest(%(part)s::int[], %(epoch)s::bigint[], %(batch_no)s::bigint[], %(outbox)s::bytea[])
        AS m(part, epoch, batch_no, outbox)),
fence AS (
    UPDATE {s}.part_owner o SET batch_no = m.batch_no FROM mine m
    WHERE o.part = m.part AND o.epoch = m.epoch AND o.batch_no = m.batch_no - 1 RETURNING o.part),
outboxes AS (
    INSERT INTO {s}.part_outbox SELECT part, batch_no, outbox FROM mine
    ON CONFLICT (part) DO UPDATE SET batch_no = excluded.batch_no, records = excluded.records),
offsets AS (
    INSERT INTO {s}.part_offset
    SELECT * FROM unnest(%(topic)s::text[], %(topic_part)s::int[], %(topic_id)s::text[],
                         %(next_offset)s::bigint[])
    ON CONFLICT (topic, part) DO UPDATE SET topic_id = excluded.topic_id, next_offset = excluded.next_offset),
kept AS (
    INSERT INTO {s}.state (key, part, body, due_at, waits_for, memo)
    SELECT * FROM unnest(%(key)s::text[], %(key_part)s::int[], %(body)s::bytea[], %(due_at)s::timestamptz[],
                         %(waits_for)s::text[], %(memo)s::bytea[])
    ON CONFLICT (key) DO UPDATE SET part = excluded.part, body = excluded.body, due_at = excluded.due_at,
                                    waits_for = excluded.waits_for, memo = excluded.memo),
gone AS (DELETE FROM {s}.state WHERE key = ANY(%(gone)s::text[]))
SELECT {s}.assert_owner((SELECT count(*) FROM fence), (SELECT count(*) FROM mine))
"""

_ARGUMENTS = (
    *("part", "epoch", "batch_no", "outbox", "topic", "topic_part", "topic_id", "next_offset"),
    *("key", "key_part", "body", "due_at", "waits_for", "memo", "gone"),
)


def _prepared(schema: str) -> tuple[str, str]:
    """The statement as a connection prepares it, and as a batch executes it.

    Planned anew for each batch it takes longer to plan than to do. Its plan must serve when the tables have
    grown, so it uses their keys even while they are small.
    """
    numbered = {name: f"${number}" for number, name in enumerate(_ARGUMENTS, 1)}
    body = _COMMIT.format(s=schema) % numbered
    settings = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; "
    values = ", ".join(f"%({name})s" for name in _ARGUMENTS)
    return f"{settings}PREPARE commit_batch AS {body}", f"EXECUTE commit_batch({values})"


def _arguments(parts: Sequence[PartCommit], states: Sequence[StateRow]) -> dict[str, str]:
    kept = [row for row in states if row.body is not None]
    offsets = [(topic, part.part, *spot) for part in parts for topic, spot in part.offsets.items()]
    return {
        "part": _array(str(part.part) for part in parts),
        "epoch": _array(str(part.epoch) for part in parts),
        "batch_no": _array(str(part.batch_no) for part in parts),
        "outbox": _bytes(part.outbox for part in parts),
        "topic": _texts(topic for topic, _, _, _ in offsets),
        "topic_part": _array(str(part) for _, part, _, _ in offsets),
        "topic_id": _texts(topic_id for _, _, topic_id, _ in offsets),
        "next_offset": _array(str(offset) for _, _, _, offset in offsets),
        "key": _texts(row.key for row in kept),
        "key_part": _array(str(row.part) for row in kept),
        "body": _bytes(squeezed(row.body or b"") for row in kept),
        "due_at": _array("NULL" if row.due_at is None else f'"{row.due_at.isoformat()}"' for row in kept),
        "waits_for": _texts(row.waits_for for row in kept),
        "memo": _bytes(row.memo for row in kept),
        "gone": _texts(row.key for row in states if row.body is None),
    }


def _array(items: Iterable[str]) -> str:
    return "{" + ",".join(items) + "}"


def _texts(items: Iterable[str | None]) -> str:
    return _array("NULL" if item is None else _quoted(item) for item in items)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _bytes(items: Iterable[bytes | None]) -> str:
    return _array("NULL" if item is None else f'"\\\\x{item.hex()}"' for item in items)
