"""Create the permits of concurrency limits.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Keys begin with the tenant. A waiter's `max` is the limit as its execution knows it."""
    op.execute("""
CREATE TABLE executor.permit (
    key text NOT NULL, execution_id text NOT NULL, PRIMARY KEY (key, execution_id));
CREATE TABLE executor.permit_waiter (
    key text NOT NULL, execution_id text NOT NULL, since timestamptz NOT NULL, max integer NOT NULL,
    PRIMARY KEY (key, execution_id));
CREATE INDEX permit_waiter_line ON executor.permit_waiter (key, since, execution_id);
""")
