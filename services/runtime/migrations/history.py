"""Run one service's Alembic history on one database."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from services.runtime import database
from services.runtime.settings import sqlalchemy_url

LOCK_TIMEOUT_MS = 30_000


class Away(Exception):
    """The database cannot be used just now; trying again may help."""


def upgrade(url: str, service: str, versions: Path) -> None:
    """Run the versions that are due, in one transaction. Raises Away, else SQLAlchemy's DBAPIError."""
    engine = create_engine(
        sqlalchemy_url(url),
        poolclass=NullPool,
        connect_args={
            "application_name": f"{service}-migrate",
            "connect_timeout": database.CONNECT_TIMEOUT_S,
            "options": f"-c lock_timeout={LOCK_TIMEOUT_MS}",
        },
    )
    try:
        with engine.begin() as connection:
            _run(connection, service, versions)
    except OperationalError as error:
        if error.orig is not None and database.classify(error.orig) is database.Failure.BACKPRESSURE:
            raise Away(str(error.orig).strip()) from error
        raise


def _run(connection: Connection, service: str, versions: Path) -> None:
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    connection.execute(lock, {"name": f"migrate {service}"})
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
