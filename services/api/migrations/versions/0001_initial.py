"""Create api's tables.

Revision ID: 0001
"""

from alembic import op

from services.runtime import outbox
from services.runtime.processor import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEYS = """
    CREATE TABLE api.api_key (
        prefix text PRIMARY KEY,
        secret_hash bytea NOT NULL,
        tenant text NOT NULL,
        principal text NOT NULL,
        role text NOT NULL CHECK (role IN ('viewer', 'author', 'operator', 'admin')),
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz,
        revoked_at timestamptz
    );
    COMMENT ON COLUMN api.api_key.secret_hash IS 'SHA-256 of the whole key; the key itself is kept nowhere';
"""

DEFINITIONS = """
    CREATE TABLE api.definition (
        tenant text NOT NULL,
        kind text NOT NULL,
        id text NOT NULL,
        revision bigint NOT NULL,
        body json NOT NULL,
        body_hash text NOT NULL,
        etag text NOT NULL,
        changed_at timestamptz NOT NULL,
        changed_by text NOT NULL,
        deleted boolean NOT NULL DEFAULT false,
        PRIMARY KEY (tenant, kind, id, revision)
    );
    COMMENT ON TABLE api.definition IS 'Every revision, never changed; the highest one is current';
"""

EXECUTIONS = """
    CREATE TABLE api.job_request (
        execution_id text PRIMARY KEY,
        tenant text NOT NULL,
        principal text,
        name text,
        job_type text,
        tag text,
        dataset_id text,
        dataset_revision bigint,
        body_hash text,
        record bytea,
        submitted_at timestamptz NOT NULL,
        sequence bigint NOT NULL DEFAULT 0,
        status text NOT NULL DEFAULT 'pending',
        started_at timestamptz,
        finished_at timestamptz,
        steps json NOT NULL DEFAULT '[]',
        files bigint NOT NULL DEFAULT 0,
        rows bigint NOT NULL DEFAULT 0,
        bytes bigint NOT NULL DEFAULT 0,
        errors json NOT NULL DEFAULT '[]',
        failure json,
        parked integer NOT NULL DEFAULT 0,
        incomplete boolean NOT NULL DEFAULT false
    );
    CREATE INDEX job_request_list ON api.job_request (tenant, submitted_at DESC, execution_id DESC);
    CREATE INDEX job_request_unanswered ON api.job_request (execution_id) WHERE record IS NOT NULL;
    COMMENT ON COLUMN api.job_request.record IS 'job.requested as published, until the manager has answered';
    COMMENT ON COLUMN api.job_request.sequence IS 'that of the newest event in this row; 0 = as submitted';
    COMMENT ON COLUMN api.job_request.parked IS 'events that wait for one before them';

    CREATE TABLE api.execution_event (
        execution_id text NOT NULL,
        sequence bigint NOT NULL,
        tenant text NOT NULL,
        type text NOT NULL,
        occurred_at timestamptz NOT NULL,
        body json NOT NULL,
        PRIMARY KEY (execution_id, sequence)
    );

    CREATE TABLE api.file (
        execution_id text NOT NULL,
        name text NOT NULL,
        tenant text NOT NULL,
        batch text,
        rows bigint NOT NULL,
        bytes bigint NOT NULL,
        sha256 text NOT NULL,
        content_type text NOT NULL,
        blob_key text NOT NULL,
        published_at timestamptz NOT NULL,
        PRIMARY KEY (execution_id, name)
    );
"""

PUBLISHED = """
    CREATE TABLE api.published_topic (name text PRIMARY KEY, uuid text NOT NULL);
    COMMENT ON TABLE api.published_topic IS 'Topics we write: another UUID means that their log was lost';
"""


def upgrade() -> None:
    """Forward only."""
    for statement in (KEYS, DEFINITIONS, EXECUTIONS, PUBLISHED, outbox.ddl("api"), tables.ddl("api")):
        op.execute(statement)
