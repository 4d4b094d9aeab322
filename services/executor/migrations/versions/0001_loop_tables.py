"""Create the loop's tables.

Revision ID: 0001
"""

from alembic import op

from services.runtime.processor import tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    """The manager keeps executions, and the definitions it has read, as states of its loop."""
    op.execute(tables.ddl("executor"))
