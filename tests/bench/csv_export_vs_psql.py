"""5,000,000 rows x 12 columns (about 700 MB of CSV) into one sealed file, against psql's own \\copy.

Asked for by `job.requested`, run by the ordinary manager and worker. Measured is from `step.running` to
`file.published`, both of the manager's clock: compressed, encrypted, hashed, synced to disk and told. psql
writes the same bytes as they are, without a sync. Both write to the same disk, which is synced in between.
"""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
from confluent_kafka import Consumer, TopicPartition

from services.cli.dev import postgres
from services.contracts import envelope, events
from services.contracts.commands import Definition, File, JobRequested
from services.runtime import blobs, entropy, kafka
from services.runtime.kafka import Publisher
from services.runtime.schemas import codec
from tests.bench.figures import Figure, Sample
from tests.bench.noops import EVENTS, PARTITIONS
from tests.bench.system import System
from tests.exporting import PSQL_ENVIRONMENT

ROWS = 5_000_000
TIMEOUT_S = 300.0

SECONDS = Figure(
    name="csv_export_vs_psql",
    goal=0.90,
    better="lower",
    unit="s",
    about=f"{ROWS} rows x 12 columns, zstd-1 + AES-256-GCM + SHA-256, step.running to file.published",
    peer="psql \\copy of the same query to a file",
)
MEMORY = Figure(
    name="csv_export_worker_rss",
    goal=64.0,
    better="lower",
    unit="MB",
    about="the most memory that was ever resident in the worker of csv_export_vs_psql",
)
FIGURES = (SECONDS, MEMORY)

COLUMNS = {
    "id": "integer", "customer": "integer", "quantity": "integer", "region": "integer", "price": "float",
    "discount": "float", "ordered_at": "timestamp", "shipped_at": "timestamp", "name": "string",
    "city": "string", "remark": "string", "paid": "boolean",
}  # fmt: skip
TABLE = f"""
    CREATE TABLE public.orders AS SELECT
        n::bigint AS id, (n * 7919 % 1000000)::int AS customer, (n % 97)::int AS quantity,
        (n % 13)::int AS region, (n * 31 % 100003) / 7.0::float8 AS price,
        CASE WHEN n % 3 = 0 THEN (n % 50) / 100.0::float8 END AS discount,
        timestamp '2020-01-01' + n * interval '13 seconds' AS ordered_at,
        CASE WHEN n % 5 > 0 THEN timestamp '2020-01-02' + n * interval '17.5 seconds' END AS shipped_at,
        'Customer ' || md5(n::text) AS name, 'City number ' || n % 5000 AS city,
        CASE WHEN n % 4 > 0 THEN 'said "yes", line ' || n % 1000 END AS remark, n % 2 = 0 AS paid
    FROM generate_series(1, {ROWS}::bigint) AS n
"""


def rounds(system: System, count: int) -> Iterator[dict[str, Sample]]:
    """psql, then ours, then both again."""
    source = system.stack.fresh_database()
    with psycopg2.connect(source) as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
    connection.close()
    vacuumed(source)
    worker = system.service(
        "worker", MILLSTREAM_SOURCES__BENCH=source, MILLSTREAM_SOURCES__BENCH__TENANTS="*"
    )
    system.service("manager")
    plain = system.folder / "psql.csv"
    copied_s(source, plain)
    exported_s(system, plain)
    for _ in range(count):
        peer = copied_s(source, plain)
        yield {
            SECONDS.name: Sample(exported_s(system, plain), peer),
            MEMORY.name: Sample(worker.peak_rss_mb()),
        }


def vacuumed(source: str) -> None:
    """No round pays for the table's first reading."""
    connection = psycopg2.connect(source)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE, FREEZE) public.orders")
        cursor.execute("CHECKPOINT")
    connection.close()


def copied_s(source: str, path: Path) -> float:
    """Seconds of psql."""
    path.unlink(missing_ok=True)
    os.sync()
    command = [str(postgres.binaries() / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", source]
    copy = f"\\copy (SELECT {', '.join(COLUMNS)} FROM public.orders) TO '{path}' WITH (FORMAT csv, HEADER)"
    started = time.perf_counter()
    subprocess.run([*command, "-c", copy], check=True, env=PSQL_ENVIRONMENT)
    return time.perf_counter() - started


def exported_s(system: System, expected: Path) -> float:
    """Seconds of ours; the file is compared with psql's and removed."""
    os.sync()
    consumer = Consumer(kafka.consumer_config(system.stack.kafka, "bench", "bench"))
    parts = [TopicPartition(EVENTS, part) for part in PARTITIONS]
    consumer.assign(
        [TopicPartition(EVENTS, p.partition, consumer.get_watermark_offsets(p, 30)[1]) for p in parts]
    )
    ask(system)
    started: float | None = None
    for event in followed(consumer):
        if isinstance(event, events.StepRunning):
            started = event.occurred_at.timestamp()
        if isinstance(event, events.FilePublished) and event.file.name == "report.csv":
            ended, file = event.occurred_at.timestamp(), event.file
    consumer.close()
    assert started is not None
    check(system, file, expected)
    return ended - started


def ask(system: System) -> None:
    """One request, acknowledged."""
    columns = [{"name": name, "type": type_} for name, type_ in COLUMNS.items()]
    dataset = {"source": "bench", "table": "public.orders", "columns": columns}
    request = JobRequested(
        execution_id=entropy.fresh_id(),
        tenant="bench",
        requested_at=entropy.LocalClock().now(),
        created_by="bench",
        name="orders",
        job_type="export",
        definition=Definition(kind="dataset", id="orders", revision=1, body=dataset),
        parameters={"params": {}, "time_range": None},
    )
    publisher = Publisher(system.stack.kafka, "bench")
    record = envelope.command(request, codec().encode(request))
    publisher.publish(record.topic, record.key, record.value, record.headers).result(30)
    publisher.close(5)


def followed(consumer: Consumer) -> Iterator[events.Event]:
    """The events up to the end of the execution, which must be a good one."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        message = consumer.poll(1)
        value = message.value() if message else None
        if value is None:
            continue
        event = codec().decode(EVENTS, value)
        assert isinstance(event, events.Event)
        yield event
        if events.type_of(event) in events.TERMINAL:
            assert isinstance(event, events.ExecutionCompleted), event
            return
    raise AssertionError(f"no end within {TIMEOUT_S} s")


def check(system: System, file: File, expected: Path) -> None:
    """The same bytes as psql's, in a store that holds fewer."""
    with expected.open("rb") as content:
        assert hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    assert file.rows == ROWS
    store = blobs.connect(f"file://{system.folder / 'dev' / 'blobs'}")
    assert store.size(file.key) < file.bytes / 2
    store.delete(file.key)
