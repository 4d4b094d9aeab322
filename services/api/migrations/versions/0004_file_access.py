"""Who fetched which file, and links that can be revoked.

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

REVOCATION = """
    ALTER TABLE api.file ADD COLUMN link_generation integer NOT NULL DEFAULT 0;
    COMMENT ON COLUMN api.file.link_generation IS 'signed into every link: one more, and all before are void';
"""

ACCESS = """
    CREATE TABLE api.file_access (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        execution_id text NOT NULL,
        name text NOT NULL,
        tenant text NOT NULL,
        method text NOT NULL,
        status integer NOT NULL,
        first_byte bigint,
        last_byte bigint,
        key_id text NOT NULL,
        client text
    );
    CREATE INDEX file_access_file ON api.file_access (execution_id, name, at);
    COMMENT ON TABLE api.file_access IS 'One row per request with a good link, written before the first byte';
    COMMENT ON COLUMN api.file_access.key_id IS 'the key that signed the link; the signature is kept nowhere';
"""

# An owner is disabled when every key of theirs is revoked.
OWNERS = """
    CREATE INDEX api_key_owner ON api.api_key (tenant, principal);
"""


def upgrade() -> None:
    """Forward only."""
    for statement in (REVOCATION, ACCESS, OWNERS):
        op.execute(statement)
