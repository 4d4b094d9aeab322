"""Migrations: forward only, one history per service, kept in that service's own schema.

A service's versions are plain Alembic files in `services/<name>/migrations/versions/`, without `downgrade`:

    revision = "0001"
    down_revision = None
    def upgrade() -> None:
        op.execute("CREATE TABLE api.job_request (...)")

All that are due run in one transaction under an advisory lock, so that several processes may start at once
and a killed one leaves nothing half done. Names in them carry the schema.
"""

import time
from pathlib import Path

SERVICES = Path(__file__).parents[2]
AWAY_TIMEOUT_S = 60.0
RETRY_S = 1.0


def migrate(url: str, service: str) -> None:
    """Bring the schema `service` of the database to the newest version; does nothing when it is there.

    The schema is created when the role may create it. A database that is away is waited for, up to
    AWAY_TIMEOUT_S; then, and for any other error, an exception that says why is raised.
    """
    # Alembic and SQLAlchemy are half of a process's start-up time, and only this command needs them.
    from services.runtime.migrations import history  # noqa: PLC0415

    versions = SERVICES / service / "migrations" / "versions"
    if not versions.is_dir():
        raise FileNotFoundError(f"{versions}: expected a folder of Alembic versions, found none")
    deadline = time.monotonic() + AWAY_TIMEOUT_S
    while True:
        try:
            history.upgrade(url, service, versions)
        except history.Away:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
        else:
            return
