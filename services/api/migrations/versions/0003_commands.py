"""Commands to executions and their answers, reruns, and the orders in which executions are listed.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COMMANDS = """
    CREATE TABLE api.command (
        command_id text PRIMARY KEY,
        execution_id text NOT NULL,
        tenant text NOT NULL,
        principal text NOT NULL,
        kind text NOT NULL,
        body_hash text NOT NULL,
        rerun_id text,
        record bytea,
        requested_at timestamptz NOT NULL,
        answer text,
        reason text,
        message text,
        answered_at timestamptz
    );
    CREATE INDEX command_unanswered ON api.command (command_id) WHERE record IS NOT NULL;
    COMMENT ON COLUMN api.command.record IS 'execution.commands as published, until the manager has answered';
    COMMENT ON COLUMN api.command.answer IS 'the type of the event that answered it';
"""

RERUNS = """
    ALTER TABLE api.job_request
        ADD COLUMN rerun_of text,
        ADD COLUMN reruns json NOT NULL DEFAULT '[]',
        ADD COLUMN rerun_count integer NOT NULL DEFAULT 0;
    COMMENT ON COLUMN api.job_request.reruns IS 'ids of the executions that repeat this one, oldest first';
    COMMENT ON COLUMN api.job_request.rerun_count IS 'numbers given to reruns, refused ones included';
"""

# A filter that few executions pass must not read the tenant's whole list.
LISTS = """
    CREATE INDEX job_request_state ON api.job_request (tenant, state, submitted_at DESC, execution_id DESC);
    CREATE INDEX job_request_principal
        ON api.job_request (tenant, principal, submitted_at DESC, execution_id DESC);
    CREATE INDEX job_request_type ON api.job_request (tenant, job_type, submitted_at DESC, execution_id DESC);
"""


def upgrade() -> None:
    """Forward only."""
    for statement in (COMMANDS, RERUNS, LISTS):
        op.execute(statement)
