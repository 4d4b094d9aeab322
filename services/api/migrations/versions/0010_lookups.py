"""Find the executions of a pipeline and the reruns of an execution without a scan.

Revision ID: 0010
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only."""
    op.execute(
        "CREATE INDEX job_request_pipeline ON api.job_request"
        " (tenant, dataset_id, submitted_at DESC, execution_id DESC) WHERE job_type = 'pipeline'"
    )
    op.execute(
        "CREATE INDEX command_rerun ON api.command (execution_id, rerun_id) WHERE rerun_id IS NOT NULL"
    )
