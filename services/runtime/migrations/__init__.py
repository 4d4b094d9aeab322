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

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from services.runtime import database
from services.runtime.settings import sqlalchemy_url

SERVICES = Path(__file__).parents[2]
AWAY_TIMEOUT_S = 60.0
RETRY_S = 1.0
LOCK_TIMEOUT_MS = 30_000


def migrate(url: str, service: str) -> None:
    """Bring the schema `service` of the database to the newest version; does nothing when it is there.

    The schema is created when the role may create it. A database that is away is waited for, up to
    AWAY_TIMEOUT_S; then, and for any other error, the driver's exception is raised (SQLAlchemy's DBAPIError).
    """
    versions = SERVICES / service / "migrations" / "versions"
    if not versions.is_dir():
        raise FileNotFoundError(f"{versions}: expected a folder of Alembic versions, found none")
    deadline = time.monotonic() + AWAY_TIMEOUT_S
    while True:
        try:
            _migrate_once(url, service, versions)
        except DBAPIError as error:
            away = isinstance(error, OperationalError) and error.orig is not None
            away = away and database.classify(error.orig) is database.Failure.BACKPRESSURE  # type: ignore[arg-type]
            if not away or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
        else:
            return


def _migrate_once(url: str, service: str, versions: Path) -> None:
    engine = create_engine(
        sqlalchemy_url(url),
        poolclass=NullPool,
        connect_args={
            "application_name": f"{service}-migrate",
            "connect_timeout": database.CONNECT_TIMEOUT_S,
            "options": f"-c lock_timeout={LOCK_TIMEOUT_MS}",
        },
    )
    with engine.begin() as connection:
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"migrate {service}"}
        )
        _ensure_schema(connection, service)
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        config.set_main_option("version_locations", str(versions).replace("%", "%%"))
        config.set_main_option("path_separator", "newline")
        config.attributes.update(connection=connection, schema=service)
        command.upgrade(config, "head")


def _ensure_schema(connection: Connection, schema: str) -> None:
    # IF NOT EXISTS asks for the right to create schemas even when there is nothing to create
    found = connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema})
    if found.scalar() is None:
        connection.execute(text(f'CREATE SCHEMA "{schema}"'))
