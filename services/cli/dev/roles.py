"""One database role and one schema per service, and a source database to try things on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

DATABASE = "millstream"


def as_role(url: str, role: str, password: str) -> str:
    """The same server and database for another role."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(role)}:{quote(password)}@{host}"))


def in_database(url: str, database: str) -> str:
    """The same server and role for another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def may_create_roles(url: str) -> bool:
    """Whether the URL's own role may make roles. Raises psycopg2.OperationalError."""
    with session(url) as cursor:
        cursor.execute("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
        row = cursor.fetchone()
    return bool(row and row[0])


def ensure_database(url: str, name: str, owner: str | None = None) -> None:
    """Create a database that only its owner and the roles granted later may enter."""
    with session(url) as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
        if owner is not None:
            statement = "ALTER DATABASE {} OWNER TO {}"
            cursor.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Identifier(owner)))


def ensure_role(url: str, role: str, password: str) -> None:
    """Create a role that may log in and nothing else, or give it this password."""
    with session(url) as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
        # who may not make databases may not say of a role that there is that it may not either
        known = cursor.fetchone() is not None
        create = "CREATE ROLE {} LOGIN NOCREATEDB NOCREATEROLE PASSWORD {}"
        statement = "ALTER ROLE {} LOGIN PASSWORD {}" if known else create
        cursor.execute(sql.SQL(statement).format(sql.Identifier(role), sql.Literal(password)))


def ensure_schemas(url: str, passwords: Mapping[str, str]) -> dict[str, str]:
    """Make the role `ms_<schema>` and the schema it owns, for each; returns schema -> URL of its role.

    No role has a right on another's schema.
    """
    database = urlsplit(url).path.lstrip("/")
    for schema, password in passwords.items():
        role = f"ms_{schema}"
        ensure_role(url, role, password)
        names = {"role": sql.Identifier(role), "schema": sql.Identifier(schema)}
        with session(url) as cursor:
            # who makes roles without being a superuser must be a member to give one a schema
            cursor.execute(sql.SQL("GRANT {role} TO CURRENT_USER").format(**names))
            statement = "GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}"
            cursor.execute(sql.SQL(statement).format(sql.Identifier(database), names["role"]))
            statement = "CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {role}"
            cursor.execute(sql.SQL(statement).format(**names))
    return {schema: as_role(url, f"ms_{schema}", password) for schema, password in passwords.items()}


def ensure_owner(url: str, schema: str, password: str) -> str:
    """Make the role `ms_<schema>_owner` and give it the schema with all that is in it; its URL.

    `ms_<schema>` keeps what it is granted, and cannot change what it may only add to.
    """
    owner = f"ms_{schema}_owner"
    ensure_role(url, owner, password)
    database = urlsplit(url).path.lstrip("/")
    names = {"owner": sql.Identifier(owner), "former": sql.Identifier(f"ms_{schema}")}
    with session(url) as cursor:
        cursor.execute(sql.SQL("GRANT {owner} TO CURRENT_USER").format(**names))
        statement = "GRANT CONNECT ON DATABASE {} TO {owner}"
        cursor.execute(sql.SQL(statement).format(sql.Identifier(database), **names))
        cursor.execute(sql.SQL("REASSIGN OWNED BY {former} TO {owner}").format(**names))
    return as_role(url, owner, password)


def ensure_source(url: str, name: str, owner_password: str, reader_password: str) -> tuple[str, str]:
    """A database of its own for source tables: (URL that may load it, URL that may only read it)."""
    owner, reader = f"{name}_owner", f"{name}_reader"
    ensure_role(url, owner, owner_password)
    ensure_role(url, reader, reader_password)
    ensure_database(url, name, owner)
    own = in_database(url, name)
    with session(own) as cursor:
        statement = "GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}"
        cursor.execute(sql.SQL(statement).format(sql.Identifier(name), sql.Identifier(reader)))
        cursor.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(sql.Identifier(reader)))
    return as_role(own, owner, owner_password), as_role(own, reader, reader_password)


@contextmanager
def session(url: str) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor on a short connection in autocommit: CREATE DATABASE refuses a transaction."""
    connection = psycopg2.connect(url, connect_timeout=5, application_name="millstream-dev")
    try:
        connection.autocommit = True
        yield connection.cursor()
    finally:
        connection.close()
