"""What the role that serves may do to tables that another role owns: all but change what was appended."""

from urllib.parse import unquote, urlsplit

from psycopg2 import sql

from services.runtime.database import connect

APPEND_ONLY = "step_event"

_GRANTS = (
    "GRANT USAGE ON SCHEMA api TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA api TO {role}",
    "REVOKE ALL ON api.{append_only}, api.schema_version FROM {role}",
    "GRANT SELECT, INSERT ON api.{append_only} TO {role}",
    "GRANT SELECT ON api.schema_version TO {role}",
)


def give(owner_url: str, url: str) -> None:
    """Let the role of `url` use the tables of the role of `owner_url`. Giving again changes nothing.

    Raises psycopg2.Error.
    """
    names = {
        "role": sql.Identifier(unquote(urlsplit(url).username or "")),
        "append_only": sql.Identifier(APPEND_ONLY),
    }
    connection = connect(owner_url, "millstream-api-migrate")
    try:
        with connection, connection.cursor() as cursor:
            # two that give at once would meet in the catalogue
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('migrate api', 0))")
            for statement in _GRANTS:
                cursor.execute(sql.SQL(statement).format(**names))
    finally:
        connection.close()
