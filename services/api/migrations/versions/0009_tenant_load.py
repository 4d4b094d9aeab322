"""Count the executions of each tenant that have not ended.

Revision ID: 0009
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.execute("""
    CREATE TABLE api.tenant_load (
        tenant text NOT NULL,
        side smallint NOT NULL,
        open bigint NOT NULL,
        PRIMARY KEY (tenant, side)
    ) WITH (fillfactor = 20);
    COMMENT ON TABLE api.tenant_load IS
        'executions that have not ended: the sum of side 0, what api accepted, and 1, what events told since';
    INSERT INTO api.tenant_load
        SELECT tenant, 1, count(*) FROM api.job_request WHERE state IN ('pending', 'running', 'waiting')
        GROUP BY tenant;
    INSERT INTO api.tenant_load
        SELECT tenant, 0, count(*) FROM api.command WHERE kind = 'rerun' AND answer IS NULL GROUP BY tenant;
    """)
