"""What Alembic runs for every service: the caller's connection and transaction, the service's own schema."""

from alembic import context

_config = context.config
context.configure(
    connection=_config.attributes["connection"],
    version_table="schema_version",
    version_table_schema=_config.attributes["schema"],
    transactional_ddl=True,
)
context.run_migrations()
