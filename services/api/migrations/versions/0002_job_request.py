"""Give `api.job_request` the columns and the key of S1's table beside our own.

S1's columns have S1's names and types. Those that are a function of ours are generated, so that no
statement can let the two differ; our own status word becomes `state`, because `status` is S1's.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OURS = """
    ALTER TABLE api.job_request RENAME COLUMN status TO state;
    ALTER TABLE api.job_request
        ADD COLUMN updated_at timestamptz,
        ADD COLUMN batch_filters json;
    COMMENT ON COLUMN api.job_request.updated_at IS 'of the newest event in this row; null = as submitted';
    COMMENT ON COLUMN api.job_request.batch_filters IS
        '{ids, channels} that the entries of batchFilters turned out to be; null until then';
"""

# Our instants are timestamptz; S1's TIMESTAMP has no zone: it holds UTC.
EXHAUST = """
    ALTER TABLE api.job_request
        ALTER COLUMN tag TYPE varchar(50) USING left(coalesce(tag, ''), 50),
        ALTER COLUMN tag SET DEFAULT '',
        ALTER COLUMN tag SET NOT NULL,
        ADD COLUMN request_id varchar(50) GENERATED ALWAYS AS (execution_id) STORED,
        ADD COLUMN job_id varchar(50)
            GENERATED ALWAYS AS (left(coalesce(dataset_id, job_type), 50)) STORED,
        ADD COLUMN status varchar(50) NOT NULL GENERATED ALWAYS AS (
            CASE state
                WHEN 'pending' THEN 'SUBMITTED'
                WHEN 'running' THEN 'PROCESSING'
                WHEN 'waiting' THEN 'PROCESSING'
                WHEN 'completed' THEN 'COMPLETED'
                WHEN 'completed_with_warnings' THEN 'COMPLETED'
                WHEN 'failed' THEN 'FAILED'
                WHEN 'rejected' THEN 'FAILED'
                WHEN 'cancelled' THEN 'CANCELLED'
            END) STORED,
        ADD COLUMN request_data json,
        ADD COLUMN requested_by varchar(50) GENERATED ALWAYS AS (left(principal, 50)) STORED,
        ADD COLUMN requested_channel varchar(50),
        ADD COLUMN download_urls text[] NOT NULL DEFAULT '{}',
        ADD COLUMN dt_file_created timestamp,
        ADD COLUMN dt_job_submitted timestamp
            GENERATED ALWAYS AS (submitted_at AT TIME ZONE 'UTC') STORED,
        ADD COLUMN dt_job_completed timestamp
            GENERATED ALWAYS AS (finished_at AT TIME ZONE 'UTC') STORED,
        ADD COLUMN execution_time integer
            GENERATED ALWAYS AS (extract(epoch FROM finished_at - started_at)) STORED,
        ADD COLUMN err_message varchar(100);
    ALTER TABLE api.job_request DROP CONSTRAINT job_request_pkey;
    ALTER TABLE api.job_request
        ADD CONSTRAINT job_request_execution UNIQUE (execution_id),
        ADD PRIMARY KEY (tag, request_id);
    CREATE INDEX job_request_tag ON api.job_request (tenant, tag, submitted_at DESC, execution_id DESC);
    COMMENT ON COLUMN api.job_request.status IS 'S1''s word for state';
    COMMENT ON COLUMN api.job_request.download_urls IS 'paths, unsigned: links are signed when they are read';
    COMMENT ON COLUMN api.job_request.execution_time IS 'seconds from the first step''s start to the end';
    COMMENT ON COLUMN api.job_request.dt_job_submitted IS 'UTC, as all timestamps of S1';
"""

TAGS = """
    CREATE TABLE api.tag (tag varchar(50) PRIMARY KEY, tenant text NOT NULL);
    COMMENT ON TABLE api.tag IS 'Whose tag it is: that of the tenant whose request used it first';
"""


def upgrade() -> None:
    """Forward only."""
    for statement in (OURS, EXHAUST, TAGS):
        op.execute(statement)
