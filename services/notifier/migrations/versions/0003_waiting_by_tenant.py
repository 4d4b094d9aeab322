"""Find what is due by destination and tenant, so that one tenant's backlog never hides another's.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The pairs with something pending, one index probe each: a receiver with a million due deliveries costs the
# others nothing.
WAITING = """
    CREATE INDEX delivery_waiting ON notifier.delivery (destination, tenant, next_attempt_at)
        WHERE state = 'pending';
    CREATE RECURSIVE VIEW notifier.waiting (destination, tenant) AS
        (SELECT destination, tenant FROM notifier.delivery WHERE state = 'pending'
         ORDER BY destination, tenant LIMIT 1)
        UNION ALL
        SELECT following.destination, following.tenant
        FROM waiting CROSS JOIN LATERAL (
            SELECT d.destination, d.tenant FROM notifier.delivery AS d
            WHERE d.state = 'pending' AND (d.destination, d.tenant) > (waiting.destination, waiting.tenant)
            ORDER BY d.destination, d.tenant LIMIT 1) AS following;
    DROP VIEW notifier.destination;
    DROP INDEX notifier.delivery_due;
"""


def upgrade() -> None:
    """Forward only; stop the notifier before."""
    op.execute(WAITING)
