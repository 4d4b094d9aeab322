"""Give the loop's states the column for memos, which api's projector leaves empty.

Revision ID: 0007
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only. A fresh database has the column since its first migration."""
    op.execute("ALTER TABLE api.state ADD COLUMN IF NOT EXISTS memo bytea")
