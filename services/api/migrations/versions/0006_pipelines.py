"""Whose key it is, what waits for whom, and the words of every step, appended and never changed.

Revision ID: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OWNERS = """
    ALTER TABLE api.api_key
        ADD COLUMN owner text,
        ADD COLUMN groups text[] NOT NULL DEFAULT '{}';
    COMMENT ON COLUMN api.api_key.owner IS
        'the person behind a key of a service or bot, who cannot approve by it what they asked for';
    COMMENT ON COLUMN api.api_key.groups IS 'groups of approvers to which the principal belongs';
"""

REQUESTS = """
    ALTER TABLE api.job_request
        ADD COLUMN owner text,
        ADD COLUMN form json,
        ADD COLUMN waiting json,
        ADD COLUMN approvals json NOT NULL DEFAULT '[]',
        ADD COLUMN hooks json NOT NULL DEFAULT '[]';
    COMMENT ON COLUMN api.job_request.form IS 'the values of a service request; null for other executions';
    COMMENT ON COLUMN api.job_request.waiting IS
        '{reason, step, until} of what it waits for, and under approval what an approver is asked';
    CREATE INDEX job_request_waiting ON api.job_request (tenant, submitted_at, execution_id)
        WHERE waiting IS NOT NULL;
"""

STEP_EVENTS = """
    CREATE TABLE api.step_event (
        execution_id text NOT NULL,
        step_name text NOT NULL,
        event_type text NOT NULL
            CHECK (event_type IN ('Not Started', 'Running', 'Failed', 'Cancelled', 'Completed')),
        attempt integer NOT NULL,
        sequence bigint NOT NULL,
        occurred_at timestamptz NOT NULL,
        tenant text NOT NULL,
        PRIMARY KEY (execution_id, sequence, step_name)
    );
    COMMENT ON TABLE api.step_event IS
        'Every word about every step, in S3''s five words; the latest one is the state. Only ever added to';
    REVOKE UPDATE, DELETE, TRUNCATE ON api.step_event FROM CURRENT_USER;
"""
# The last statement guards against slips only: an owner can take the right back. Where it matters the owner
# is a role that no service uses (ADR 0022).


def upgrade() -> None:
    """Forward only."""
    for statement in (OWNERS, REQUESTS, STEP_EVENTS):
        op.execute(statement)
