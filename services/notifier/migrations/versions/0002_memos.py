"""Give the loop's states the column for memos, which the notifier leaves empty.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only. A fresh database has the column since its first migration."""
    op.execute("ALTER TABLE notifier.state ADD COLUMN IF NOT EXISTS memo bytea")
