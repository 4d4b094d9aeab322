"""Create deliveries and their attempts.

Revision ID: 0001
"""

from alembic import op

from services.runtime.processor import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A claim moves next_attempt_at to the end of its lease: a claimed delivery and a waiting one look the same to
# everybody, the same indexes serve both, and the lease's instant is the fence of the attempt's result.
DELIVERY = """
    CREATE TABLE notifier.delivery (
        delivery_id text PRIMARY KEY,
        execution_id text NOT NULL,
        tenant text NOT NULL,
        event_id text NOT NULL,
        sequence bigint NOT NULL,
        event_type text NOT NULL,
        listener text NOT NULL,
        destination text COLLATE "C" NOT NULL,
        url text NOT NULL,
        method text NOT NULL,
        headers jsonb NOT NULL,
        secret text,
        body bytea NOT NULL,
        state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
        attempts integer NOT NULL DEFAULT 0,
        next_attempt_at timestamptz NOT NULL DEFAULT now(),
        created_at timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz,
        last_status integer,
        last_error text
    ) WITH (fillfactor = 80);
    CREATE INDEX delivery_due ON notifier.delivery (destination, next_attempt_at) WHERE state = 'pending';
    CREATE INDEX delivery_next ON notifier.delivery (next_attempt_at) WHERE state = 'pending';
    CREATE INDEX delivery_of_execution ON notifier.delivery (execution_id, sequence);
"""

# The destinations with something pending, one index probe each: a receiver with a million due deliveries
# costs the others nothing.
DESTINATION = """
    CREATE RECURSIVE VIEW notifier.destination (name) AS
        (SELECT destination FROM notifier.delivery WHERE state = 'pending' ORDER BY destination LIMIT 1)
        UNION ALL
        SELECT (SELECT destination FROM notifier.delivery
                WHERE state = 'pending' AND destination > name ORDER BY destination LIMIT 1)
        FROM destination WHERE name IS NOT NULL
"""

ATTEMPT = """
    CREATE TABLE notifier.attempt (
        delivery_id text NOT NULL REFERENCES notifier.delivery ON DELETE CASCADE,
        attempt integer NOT NULL,
        started_at timestamptz NOT NULL,
        duration_ms integer NOT NULL,
        status integer,
        error text,
        response text CHECK (length(response) <= 5000),
        PRIMARY KEY (delivery_id, attempt)
    );
"""


def upgrade() -> None:
    """The loop's tables and ours."""
    op.execute(tables.ddl("notifier"))
    op.execute(DELIVERY)
    op.execute(DESTINATION)
    op.execute(ATTEMPT)
