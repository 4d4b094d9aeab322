"""What an execution owes its listeners, and the notifier's tables in a database of a test's own."""

import base64
from datetime import UTC, datetime
from typing import Any

import psycopg2
from psycopg2.extras import RealDictCursor

from services.contracts import ids
from services.contracts.commands import Callback, JobRequested
from services.contracts.events import Event, ExecutionAccepted, ExecutionCompleted
from services.notifier.core.following import advance
from services.notifier.core.matching import Delivery
from services.notifier.matcher import CHANNEL, write_rows
from services.runtime import entropy, migrations, sealing
from services.runtime.processor.types import Row

SEALER = sealing.Sealer({"k1": b"1" * 32})
SECRET = "whsec_" + base64.b64encode(b"canary-secret-of-32-bytes-length").decode()
TOKEN = "Bearer canary-token-2718281828"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def facts(execution: str, sequence: int, tenant: str = "acme") -> dict[str, Any]:
    return {
        "event_id": ids.event_id(execution, sequence),
        "execution_id": execution,
        "tenant": tenant,
        "sequence": sequence,
        "occurred_at": NOW,
        "causation_id": "c",
        "correlation_id": execution,
    }


def callback(url: str, *, sealer: sealing.Sealer = SEALER, tenant: str = "acme") -> Callback:
    """A callback for the end of an execution, with everything that has to be sealed."""
    return Callback(
        events=("on-execution-complete",),
        url=url,
        headers={"Authorization": sealer.seal(TOKEN, tenant, sealing.callback_header("Authorization"))},
        secret=sealer.seal(SECRET, tenant, sealing.CALLBACK_SECRET),
    )


def deliveries(
    *callbacks: Callback, execution: str | None = None, tenant: str = "acme"
) -> tuple[Delivery, ...]:
    """What an execution with these callbacks owes at its end."""
    accepted, completed = story(execution or entropy.fresh_id(), *callbacks, tenant=tenant)
    return advance(advance(None, accepted).following, completed).deliveries


def story(execution: str, *callbacks: Callback, tenant: str = "acme") -> tuple[Event, Event]:
    """The first event of an execution and the last."""
    request = JobRequested(
        execution_id=execution,
        tenant=tenant,
        requested_at=NOW,
        created_by="ann",
        name="Bericht für März ✓",
        job_type="noop",
        callbacks=callbacks,
    )
    accepted = ExecutionAccepted(**facts(execution, 1, tenant), request=request, request_hash="00", plan=())
    return accepted, ExecutionCompleted(**facts(execution, 2, tenant), files=1, rows=2, bytes=3)


class Database:
    """The notifier's schema in a database of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        migrations.migrate(url, "notifier")
        self._connection = psycopg2.connect(url)

    def insert(self, *owed: Delivery) -> None:
        """As the matcher does."""
        fields = Delivery.__dataclass_fields__
        rows = [Row("delivery", {name: getattr(one, name) for name in fields}) for one in owed]
        with self._connection, self._connection.cursor() as cursor:
            write_rows(cursor, rows)

    def query(self, sql: str, *values: object) -> list[dict[str, Any]]:
        with self._connection, self._connection.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute(sql, values)
            return [dict(row) for row in cursor.fetchall()]

    def row(self, owed: Delivery) -> dict[str, Any]:
        [row] = self.query("SELECT * FROM notifier.delivery WHERE delivery_id = %s", owed.delivery_id)
        return row

    def attempts(self, owed: Delivery) -> list[dict[str, Any]]:
        return self.query(
            "SELECT * FROM notifier.attempt WHERE delivery_id = %s ORDER BY attempt", owed.delivery_id
        )

    def due_now(self) -> None:
        """Let every pending delivery be due, as if its instant had come."""
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute("UPDATE notifier.delivery SET next_attempt_at = now() WHERE state = 'pending'")
            cursor.execute("SELECT pg_notify(%s, '')", (CHANNEL,))

    def count(self, state: str) -> int:
        [found] = self.query("SELECT count(*) AS n FROM notifier.delivery WHERE state = %s", state)
        return int(found["n"])

    def close(self) -> None:
        self._connection.close()
