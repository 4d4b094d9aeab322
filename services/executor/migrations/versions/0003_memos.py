"""Keep beside each live state what the manager has in memory of it.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Forward only. A fresh database has the column since its first migration.

    States that are there have no memo: each is due at once, which changes nothing but writes it anew.
    """
    op.execute("ALTER TABLE executor.state ADD COLUMN IF NOT EXISTS memo bytea")
    op.execute("UPDATE executor.state SET due_at = least(due_at, now()) WHERE due_at IS NOT NULL")
