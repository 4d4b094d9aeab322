"""A tag belongs to (tenant, tag): the same text of two tenants is two tags, and no owner has to be kept.

S1's primary key (tag, request_id) stays: a request_id is unique over all tenants.

Revision ID: 0008
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.execute("DROP TABLE api.tag")
