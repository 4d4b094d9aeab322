"""api over a real database, served by uvicorn in this process, without a broker.

Records stay in the outbox, where tests read them; `project` does with events what the loop does.
"""

import hashlib
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from services.api import keys, projector, read_tables
from services.api.core.links import Links
from services.api.door import Door
from services.api.intake import Intake
from services.api.keys import Caller, Keyring, Role
from services.api.listening import HttpServer
from services.api.live import Live
from services.api.parts import Parts
from services.api.pool import Pool
from services.api.streams import Streams
from services.contracts import commands, envelope, events, ids
from services.contracts.events import Event, ExecutionAccepted, Facts, PlannedStep
from services.jobs.sources import Tenants
from services.runtime import blobs, migrations, outbox, schemas
from services.runtime.container import Files
from services.runtime.entropy import Clock, LocalClock
from services.runtime.processor.types import Input, Routed
from services.runtime.sealing import Sealer
from services.runtime.settings import Quota
from tests.stack import as_service, transaction
from tests.waiting import until

SEALING_KEYS = {"s1": bytes(range(32))}
LINK_KEYS = {"l1": bytes(range(32, 64)), "l0": bytes(range(64, 96))}
FILE_KEYS = {"f1": bytes(range(96, 128))}
TTL_S = 3600
SOURCES = dict.fromkeys(("flights", "main"), ("*",))

FLIGHTS = """\
source: flights
table: public.flights
columns:
  - {name: carrier, type: string}
  - {name: time_hour, type: timestamp}
  - {name: distance, type: integer}
batch: {column: carrier, values: [9E, AA]}
filters: [distance]
time_column: time_hour
"""


@dataclass
class Api:
    """A served application and the database behind it."""

    url: str
    database_url: str
    own_url: str
    """That of the role with which api serves."""
    parts: Parts

    def key(
        self,
        role: str = "operator",
        tenant: str = "acme",
        principal: str = "alice",
        owner: str | None = None,
        groups: Iterable[str] = (),
    ) -> str:
        """A new API key."""
        with self.cursor() as cursor:
            return keys.create(cursor, Caller(tenant, principal, Role(role), owner, tuple(groups)))

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """A client that sends the key; None makes one of an operator of `acme`, "" sends none."""
        key = self.key() if key is None else key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=15, **options)

    def cursor(self) -> AbstractContextManager[Any]:
        """A transaction of the superuser."""
        return transaction(self.database_url)

    def own_cursor(self) -> AbstractContextManager[Any]:
        """A transaction of the role with which api serves."""
        return transaction(self.own_url)

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        with self.cursor() as cursor:
            cursor.execute(query, arguments)
            return list(cursor.fetchall())

    def count(self, table: str) -> int:
        """Rows of a table of api."""
        return int(self.rows(f"SELECT count(*) FROM api.{table}")[0][0])

    def outgoing(self, topic: str) -> list[Any]:
        """The decoded records of a topic in the outbox, oldest first."""
        found = self.rows("SELECT value, packed FROM api.outbox WHERE topic = %s ORDER BY id", topic)
        values = [
            value
            for row, packed in found
            for value in ([v for _, v, _ in outbox.unpack(bytes(row))] if packed else [bytes(row)])
        ]
        return [schemas.codec().decode(topic, value) for value in values]

    def project(self, story: Iterable[Event]) -> None:
        """Fold events into the read tables, one transaction each, keeping states as the loop does."""
        handler = projector.Projector(schemas.codec())
        for event in story:
            value = schemas.codec().encode(event)
            record = Input("execution.events", 0, 0, event.execution_id.encode(), value)
            routed = handler.route(record)
            assert isinstance(routed, Routed)
            with self.own_cursor() as cursor:
                cursor.execute("SELECT body FROM api.state WHERE key = %s", (routed.key,))
                row = cursor.fetchone()
                state = handler.decode(routed.key, bytes(row[0])) if row else None
                change = handler.apply(routed, state, {}, record, event.occurred_at)
                assert change.state is not None
                read_tables.write_rows(cursor, change.rows)
                cursor.execute(
                    "INSERT INTO api.state VALUES (%s, 0, %s)"
                    " ON CONFLICT (key) DO UPDATE SET body = excluded.body",
                    (routed.key, handler.encode(change.state)),
                )

    def publish_file(self, client: httpx.Client, name: str, content: bytes) -> dict[str, Any]:
        """An execution of the client's tenant with one published file: its view."""
        execution_id = client.post("/v1/executions", json={"jobType": "noop"}).json()["execution_id"]
        tenant = self.rows("SELECT tenant FROM api.job_request WHERE execution_id = %s", execution_id)[0][0]
        key = f"executions/{tenant}/{execution_id}/noop/0-0/{name}"
        with self.parts.files.create(tenant, key) as writer:
            writer.write(content)
            writer.finish()
        self.project(file_story(execution_id, tenant, name, key, content))
        view: dict[str, Any] = client.get(f"/v1/executions/{execution_id}").json()
        return view


def facts(execution_id: str, sequence: int, tenant: str = "acme") -> dict[str, Any]:
    """The fields that every event carries."""
    facts_ = Facts(
        event_id=ids.event_id(execution_id, sequence),
        execution_id=execution_id,
        tenant=tenant,
        sequence=sequence,
        occurred_at=LocalClock().now(),
        causation_id="test",
        correlation_id=execution_id,
    )
    return {name: getattr(facts_, name) for name in Facts.__struct_fields__}


def accepted(execution_id: str, tenant: str = "acme", **request: Any) -> ExecutionAccepted:
    """`execution.accepted` of a noop."""
    job = commands.JobRequested(
        execution_id=execution_id,
        tenant=tenant,
        requested_at=LocalClock().now(),
        created_by="alice",
        name="n",
        job_type="noop",
        **request,
    )
    step = PlannedStep(name="noop", kind="NOOP", parameters={}, timeout_s=600, max_attempts=5)
    return ExecutionAccepted(**facts(execution_id, 1, tenant), request=job, request_hash="h", plan=(step,))


def file_story(execution_id: str, tenant: str, name: str, key: str, content: bytes) -> list[Event]:
    """The events of an execution that publishes one file."""
    file = commands.File(
        name=name,
        key=key,
        batch=None,
        rows=1,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        content_type="text/csv",
    )
    of = (facts(execution_id, sequence, tenant) for sequence in itertools.count(2))
    return [
        accepted(execution_id, tenant),
        events.ExecutionStarted(**next(of)),
        events.StepRunning(**next(of), step="noop", attempt=1, take_id="t", worker="w"),
        events.StepCompleted(**next(of), step="noop", attempt=1, output={}),
        events.FilePublished(**next(of), step="noop", file=file),
        events.ExecutionCompleted(**next(of), files=1, rows=1, bytes=len(content)),
    ]


def record_of(event: Event, chain: bytes = b"") -> envelope.Outgoing:
    """An event as it lies on its topic."""
    value = schemas.codec().encode(event)
    return envelope.event(event, value, ids.chain(chain, value))


@contextmanager
def serving(
    database_url: str,
    folder: Path,
    link_keys: Mapping[str, bytes] = LINK_KEYS,
    streams: Streams | None = None,
    clock: Clock | None = None,
    source_tenants: Tenants = SOURCES,
    door: Door | None = None,
    quota: Quota | None = None,
) -> Iterator[Api]:
    """Serve on a free port until the block ends. The database is migrated first."""
    migrations.migrate(database_url, "api")
    own_url = as_service(database_url)
    pool = Pool(own_url)
    store = blobs.connect(f"file://{folder / 'blobs'}")
    quota = quota or Quota()
    intake = Intake(own_url, quota, lambda: None)
    parts = Parts(
        pool=pool,
        keyring=Keyring(pool),
        intake=intake,
        sealer=Sealer(SEALING_KEYS),
        links=Links(link_keys, TTL_S),
        blobs=store,
        files=Files(store, FILE_KEYS),
        live=Live(own_url),
        clock=clock or LocalClock(),
        public_url="",
        wake_relay=lambda: None,
        quota=quota,
        source_tenants=source_tenants,
        streams=streams or Streams(),
        door=door or Door(),
    )
    server = HttpServer(parts, keep_alive_s=5)
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    intake.start()
    thread.start()
    try:
        until(lambda: server.started, 10, "uvicorn to serve")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Api(f"http://127.0.0.1:{port}", database_url, own_url, parts)
    finally:
        parts.live.close()
        server.should_exit = True
        thread.join(15)
        intake.close(5)
        pool.close()
        parts.checking.close()
