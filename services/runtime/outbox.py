"""Records that leave with a database transaction: a table written by the caller, and the relay behind it.

`add` writes rows in the caller's own transaction. The relay claims rows (SKIP LOCKED), produces them, and
deletes them by id once the broker has acknowledged them; a crash in between produces them again, with the
same ids. Nothing here depends on the broker being up: rows wait.

One row holds one record, or many of one topic (`packed`): what hundreds of requests committed together then
costs the database one row. A packed row leaves the table when all of its records are acknowledged.

Serial topics (`definition.state`) are relayed by one process at a time, and a record leaves the table only
when every earlier record of its key has: a compacted topic must end with the newest one.
"""

import json
import os
import select
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import psycopg2
from confluent_kafka import KafkaException
from prometheus_client import Counter, Gauge
from psycopg2 import sql
from psycopg2.extras import execute_values

from services.contracts.envelope import Headers, Outgoing
from services.runtime import crash, telemetry
from services.runtime.database import Connection, Failure, classify, connect
from services.runtime.kafka import ProducerFull, Publisher, Unsent
from services.runtime.processor.letters import Letters, size

BATCH = 250
FEW = 8
GATHER_S = 0.02  # a pass costs the database as much for one row as for ten, so many records wait for more
RETRY_S = 1.0
SWEEP_S = 2.0  # rows of a process that died while it had claimed them, or that nobody announced
ACKNOWLEDGED_WITHIN_S = 25.0  # more than the producer's message.timeout.ms
RECORD_BYTES_MAX = 1_000_000  # with key and headers: every topic takes that, none takes much more
VALUE_BYTES_MAX = 900_000  # what job.requested and definition.state take, less headers and key

log = telemetry.get_logger()
PUBLISHED = Counter(
    "outbox_published",
    "Records that the broker acknowledged",
    ["topic"],
    registry=telemetry.REGISTRY,
)
WAITING = Gauge("outbox_waiting", "Rows in the outbox", registry=telemetry.REGISTRY)
OLDEST_S = Gauge("outbox_oldest_age_seconds", "Age of the oldest row", registry=telemetry.REGISTRY)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A row that this relay has locked, and its records."""

    id: int
    topic: str
    records: Sequence[Unsent]


def ddl(schema: str) -> str:
    """The statements that create `<schema>.outbox`, for a migration."""
    return f"""
        CREATE TABLE {schema}.outbox (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            topic text NOT NULL,
            key bytea,
            value bytea,
            headers text NOT NULL,
            packed boolean NOT NULL DEFAULT false,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp()
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
        COMMENT ON TABLE {schema}.outbox IS
            'Committed records that Kafka has not acknowledged yet; headers = [[name, text], ...]';
        COMMENT ON COLUMN {schema}.outbox.packed IS 'value holds many records, each a head and its value';
    """


_SERIAL, _OTHERS = b"s", b"."
_SIZES = struct.Struct(">II")
_HEAD = msgspec.msgpack.Decoder(tuple[bytes | None, tuple[tuple[str, bytes], ...]])


def pack_head(record: Outgoing) -> bytes:
    """What stands before a record's value in a packed row: both sizes, the key and the headers."""
    head = msgspec.msgpack.encode((record.key, record.headers))
    return _SIZES.pack(len(head), len(record.value or b"")) + head


def unpack(value: bytes) -> list[Unsent]:
    """The (key, value, headers) of a packed row."""
    records: list[Unsent] = []
    at = 0
    while at < len(value):
        head_size, value_size = _SIZES.unpack_from(value, at)
        begin = at + _SIZES.size + head_size
        at = begin + value_size
        key, headers = _HEAD.decode(value[begin - head_size : begin])
        records.append((key, value[begin:at], headers))
    return records


def headers_text(headers: Headers) -> str:
    """Headers as the table keeps them."""
    return json.dumps([[name, value.decode()] for name, value in headers])


def add(cursor: Any, schema: str, records: Sequence[Outgoing]) -> None:
    """Write records in the caller's transaction; call the relay's `wake` after the commit.

    Raises ValueError for a record that no broker of ours would take.
    """
    for record in records:
        if record.value is not None and len(record.value) > VALUE_BYTES_MAX:
            raise ValueError(
                f"{record.topic}: expected at most {VALUE_BYTES_MAX} bytes, found {len(record.value)}"
            )
    execute_values(
        cursor,
        f"INSERT INTO {schema}.outbox (topic, key, value, headers) VALUES %s",  # noqa: S608
        [(r.topic, r.key, r.value, headers_text(r.headers)) for r in records],
    )
    announce(cursor, schema)


def announce(cursor: Any, schema: str) -> None:
    """Let the relays of other processes know, once the caller's transaction commits."""
    cursor.execute("SELECT pg_notify(%s, '')", (f"{schema}_outbox",))


class Relay:
    """One thread that moves rows of `<schema>.outbox` to Kafka for as long as the process lives."""

    def __init__(
        self,
        database_url: str,
        schema: str,
        publisher: Publisher,
        letters: Letters,
        serial: frozenset[str] = frozenset(),
    ) -> None:
        """`serial`: topics whose records of one key must leave in order."""
        self._url = database_url
        self._schema = sql.Identifier(schema)
        self._channel = sql.Identifier(f"{schema}_outbox")
        self._lock_name = f"{schema}.outbox.serial"
        self._publisher, self._letters, self._service = publisher, letters, schema
        self._serial = sorted(serial)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._give_up_at: float | None = None
        self._serial_due = True
        self._records = 0  # of the last pass
        self._thread = threading.Thread(target=self._run, name="outbox-relay", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, whether or not database and broker are there."""
        self._thread.start()

    def wake(self, *, serial: bool = True) -> None:
        """Say that rows were committed, of serial topics unless `serial` is False; never blocks, safe from
        any thread."""
        try:
            os.write(self._wake_write, _SERIAL if serial else _OTHERS)
        except BlockingIOError:
            self._serial_due = True  # a full pipe wakes as well

    def close(self, timeout_s: float) -> None:
        """Publish what is left, for at most `timeout_s`, and stop; other rows wait for the next start."""
        self._give_up_at = time.monotonic() + timeout_s
        self.wake()
        self._thread.join(timeout_s + 1.0)

    def _run(self) -> None:
        while not self._finished():
            try:
                connection = connect(self._url, "outbox-relay")
            except psycopg2.OperationalError:
                log.warning("outbox_database_away")
                self._pause(RETRY_S)
                continue
            try:
                self._serve(connection)
                return
            except psycopg2.Error as error:
                if classify(error) is not Failure.BACKPRESSURE:
                    raise
                log.warning("outbox_database_lost", error=type(error).__name__)
                self._pause(RETRY_S)
            finally:
                connection.close()

    def _serve(self, connection: Connection) -> None:
        """Until closing and there is nothing left, or no time."""
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("LISTEN {}").format(self._channel))
            # A deletion that a crash undoes is a record published twice, which is what a crash does anyway.
            cursor.execute("SET synchronous_commit = off")
        connection.commit()
        self._serial_due = True
        while True:
            moved, whole = 0, True
            if self._serial_due or self._give_up_at is not None:
                moved, whole = self._pass(connection, serial=True)
                self._serial_due = moved == BATCH or not whole
            others, others_whole = self._pass(connection, serial=False)
            if self._finished() or (self._give_up_at is not None and not moved + others):
                return
            if not (whole and others_whole):
                self._measure(connection)
                self._pause(RETRY_S)
            elif max(moved, others) < BATCH:
                self._wait(connection)
                if self._records > FEW:
                    time.sleep(GATHER_S)

    def _pass(self, connection: Connection, *, serial: bool) -> tuple[int, bool]:
        """Claim, produce and delete one batch: how many were deleted, and whether all that were claimed."""
        if serial and not self._serial:
            return 0, True
        with connection, connection.cursor() as cursor:
            if serial and not self._alone(cursor):
                return 0, True
            rows = self._claim(cursor, serial)
            self._records = sum(len(row.records) for row in rows)
            if not rows:
                return 0, True
            crash.reach("outbox.claimed")
            done = self._produce(rows)
            crash.reach("outbox.produced")
            gone = prefix_per_key(rows, done) if serial else [r for r in rows if r.id in done]
            query = sql.SQL("DELETE FROM {}.outbox WHERE id = ANY(%s)").format(self._schema)
            cursor.execute(query, ([row.id for row in gone],))
        for row in gone:
            PUBLISHED.labels(row.topic).inc(len(row.records))
        return len(gone), len(gone) == len(rows)

    def _alone(self, cursor: Any) -> bool:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (self._lock_name,))
        return bool(cursor.fetchone()[0])

    def _claim(self, cursor: Any, serial: bool) -> list[Claimed]:
        query = sql.SQL(
            "SELECT id, topic, key, value, headers, packed FROM {}.outbox WHERE (topic = ANY(%s)) = %s"
            " ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
        )
        cursor.execute(query.format(self._schema), (self._serial, serial, BATCH))
        return [_claimed(*row) for row in cursor.fetchall()]

    def _sendable(self, row: Claimed) -> list[tuple[str, Sequence[Unsent]]]:
        """The row's records, and instead of those that no topic takes their dead letters."""
        records = [Outgoing(row.topic, key, value, tuple(headers)) for key, value, headers in row.records]
        large = [record for record in records if size(record) > RECORD_BYTES_MAX]
        letters = [
            self._letters.stand_in(self._service, record, "too large for its topic") for record in large
        ]
        fit = [(r.key, r.value, r.headers) for r in records if size(r) <= RECORD_BYTES_MAX]
        return [(row.topic, fit), *((r.topic, [(r.key, r.value, r.headers)]) for r in letters)]

    def _produce(self, rows: Sequence[Claimed]) -> set[int]:
        """The ids of the rows of which the broker acknowledged every record."""
        sent, error = [], ""
        for row in rows:
            try:
                sent += [(row.id, self._publisher.publish_all(*part)) for part in self._sendable(row)]
            except (ProducerFull, KafkaException) as reason:
                log.warning("outbox_not_produced", topic=row.topic, id=row.id, error=str(reason))
                break
        failed: set[int] = set()
        deadline = time.monotonic() + ACKNOWLEDGED_WITHIN_S
        for id, batch in sent:
            if fault := batch.fault(max(0.0, deadline - time.monotonic())):
                error = fault
                failed.add(id)
        if failed:
            log.warning("outbox_not_acknowledged", count=len(failed), error=error)
        return {id for id, _ in sent} - failed

    def _wait(self, connection: Connection) -> None:
        """Until rows were announced, here or by another process, or the sweep is due."""
        if self._announced(connection):
            return  # it came with the answer of the last pass, so the socket would not tell of it
        watched: list[Any] = [connection, self._wake_read]
        readable, _, _ = select.select(watched, [], [], SWEEP_S)
        if connection in readable:
            self._announced(connection)
        if self._wake_read in readable and _SERIAL in os.read(self._wake_read, 65_536):
            self._serial_due = True
        if not readable:
            self._serial_due = True
            self._measure(connection)

    def _announced(self, connection: Connection) -> bool:
        """Whether another process has announced rows; forgets it."""
        connection.poll()
        announced = bool(connection.notifies)
        connection.notifies.clear()
        self._serial_due = self._serial_due or announced
        return announced

    def _pause(self, seconds: float) -> None:
        """Wait however many rows are announced, unless we are closing."""
        deadline = time.monotonic() + seconds
        while self._give_up_at is None and (left := deadline - time.monotonic()) > 0:
            if select.select([self._wake_read], [], [], left)[0]:
                os.read(self._wake_read, 65_536)
        self._serial_due = True

    def _measure(self, connection: Connection) -> None:
        query = sql.SQL(
            "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)"
            " FROM {}.outbox"
        )
        with connection, connection.cursor() as cursor:
            cursor.execute(query.format(self._schema))
            count, age_s = cursor.fetchone() or (0, 0)
        WAITING.set(count)
        OLDEST_S.set(age_s)

    def _finished(self) -> bool:
        return self._give_up_at is not None and time.monotonic() >= self._give_up_at


def prefix_per_key(rows: Sequence[Claimed], done: set[int]) -> list[Claimed]:
    """The acknowledged rows before which no row of the same key is missing."""
    stuck: set[tuple[str, bytes | None]] = set()
    gone = []
    for row in rows:
        keys = {(row.topic, key) for key, _, _ in row.records}
        if row.id not in done:
            stuck |= keys
        elif not keys & stuck:
            gone.append(row)
    return gone


def _claimed(
    id: int, topic: str, key: memoryview | None, value: memoryview | None, headers: str, packed: bool
) -> Claimed:
    if packed:
        return Claimed(id, topic, unpack(bytes(value or b"")))
    return Claimed(id, topic, [(_bytes(key), _bytes(value), _headers(headers))])


def _bytes(value: memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)


def _headers(text: str) -> Headers:
    return tuple((name, value.encode()) for name, value in json.loads(text))
