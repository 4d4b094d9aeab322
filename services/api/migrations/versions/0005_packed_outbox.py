"""Let one row of the outbox hold the records of many requests.

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only. A fresh database has the column since its first migration."""
    op.execute("ALTER TABLE api.outbox ADD COLUMN IF NOT EXISTS packed boolean NOT NULL DEFAULT false")
