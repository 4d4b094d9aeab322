"""`api.step_event`: the role with which api serves reads it and adds to it, and nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import errors

from services.api import grants
from services.cli.dev import roles
from services.cli.dev.folder import free_port
from services.cli.dev.postgres import Postgres
from services.runtime.migrations import migrate
from tests.stack import PASSWORD, remember

pytestmark = pytest.mark.postgres

ADD = (
    "INSERT INTO api.step_event VALUES"
    " (repeat('a', 40), 'ask', %s, 0, 1, '2026-01-01T00:00:00Z', 'acme') ON CONFLICT DO NOTHING"
)

TRIGGER = (
    "CREATE TRIGGER away BEFORE INSERT ON api.step_event FOR EACH ROW"
    " EXECUTE FUNCTION suppress_redundant_updates_trigger()"
)
UPSERT = (
    "INSERT INTO api.step_event SELECT * FROM api.step_event"
    " ON CONFLICT (execution_id, sequence, step_name) DO UPDATE SET event_type = 'Failed'"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of its own: roles are shared by all databases of one."""
    folder: Path = tmp_path_factory.mktemp("roles")
    remember(folder)
    postgres = Postgres(folder / "postgres", folder / "log", free_port(0, set()), PASSWORD, durable=False)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()


@pytest.fixture(scope="module")
def urls(server: Postgres) -> tuple[str, str]:
    """(the role that serves, the role that owns), on a schema that the first one had made for itself."""
    roles.ensure_database(server.url("postgres"), roles.DATABASE)
    main = server.url(roles.DATABASE)
    own = roles.ensure_schemas(main, {"api": PASSWORD})["api"]
    migrate(own, "api")
    with roles.session(own) as cursor:
        cursor.execute(ADD, ("Not Started",))
    owner = roles.ensure_owner(main, "api", PASSWORD)
    for _ in range(2):  # as at every start
        migrate(owner, "api")
        grants.give(owner, own)
    return own, owner


def test_words_are_read_and_added(urls: tuple[str, str]) -> None:
    with roles.session(urls[0]) as cursor:
        cursor.execute(ADD.replace("0, 1,", "1, 2,"), ("Running",))
        cursor.execute("SELECT event_type FROM api.step_event ORDER BY sequence")
        assert cursor.fetchall() == [("Not Started",), ("Running",)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api.step_event SET event_type = 'Completed'",
        "DELETE FROM api.step_event",
        "TRUNCATE api.step_event",
        "ALTER TABLE api.step_event ADD COLUMN more text",
        "ALTER TABLE api.step_event OWNER TO ms_api",
        "ALTER TABLE api.step_event DISABLE TRIGGER ALL",
        "DROP TABLE api.step_event",
        "DROP SCHEMA api CASCADE",
        "CREATE TABLE api.other (a integer)",
        "CREATE RULE away AS ON INSERT TO api.step_event DO INSTEAD NOTHING",
        TRIGGER,
        UPSERT,
        "MERGE INTO api.step_event AS old USING api.step_event AS new ON true WHEN MATCHED THEN DELETE",
        "SET ROLE ms_api_owner",
        "UPDATE api.schema_version SET version_num = '0001'",
    ],
)
def test_nothing_else_is_allowed(urls: tuple[str, str], statement: str) -> None:
    with roles.session(urls[0]) as cursor, pytest.raises(errors.InsufficientPrivilege):
        cursor.execute(statement)


def test_a_right_cannot_be_given_away(urls: tuple[str, str]) -> None:
    with roles.session(urls[0]) as cursor:
        cursor.execute("GRANT ALL ON api.step_event TO ms_api")  # PostgreSQL warns, and gives nothing
        with pytest.raises(errors.InsufficientPrivilege):
            cursor.execute("DELETE FROM api.step_event")


def test_other_tables_are_served_as_before(urls: tuple[str, str]) -> None:
    with roles.session(urls[0]) as cursor:
        cursor.execute("INSERT INTO api.outbox (topic, headers) VALUES ('t', '[]') RETURNING id")
        assert cursor.fetchone() is not None


def test_a_role_that_may_only_make_roles_can_set_it_up(server: Postgres) -> None:
    admin = server.url("postgres")
    roles.ensure_role(admin, "maker", PASSWORD)
    with roles.session(admin) as cursor:
        cursor.execute("ALTER ROLE maker CREATEROLE")
    roles.ensure_database(admin, "made", "maker")
    url = roles.as_role(server.url("made"), "maker", PASSWORD)
    with roles.session(server.url("made")) as cursor:
        cursor.execute("DROP ROLE IF EXISTS ms_notifier, ms_notifier_owner")
    for _ in range(2):
        own = roles.ensure_schemas(url, {"notifier": PASSWORD})["notifier"]
        owner = roles.ensure_owner(url, "notifier", PASSWORD)
    with roles.session(owner) as cursor:
        cursor.execute("CREATE TABLE notifier.kept (a integer)")
    with roles.session(own) as cursor, pytest.raises(errors.InsufficientPrivilege):
        cursor.execute("DROP TABLE notifier.kept")


def test_one_role_for_all_is_kept_from_slips_only(server: Postgres) -> None:
    roles.ensure_database(server.url("postgres"), "single")
    main = server.url("single")
    roles.ensure_role(main, "plain", PASSWORD)
    with roles.session(main) as cursor:
        cursor.execute("GRANT CONNECT, CREATE ON DATABASE single TO plain")
    plain = roles.as_role(main, "plain", PASSWORD)
    migrate(plain, "api")
    with roles.session(plain) as cursor:
        cursor.execute(ADD, ("Not Started",))
        with pytest.raises(errors.InsufficientPrivilege):
            cursor.execute("DELETE FROM api.step_event")


def test_the_command_gives_the_rights(server: Postgres, urls: tuple[str, str]) -> None:
    with roles.session(urls[1]) as cursor:
        cursor.execute("REVOKE ALL ON api.step_event FROM ms_api")
    environment = {"MILLSTREAM_DATABASE_URL": urls[0], "MILLSTREAM_DATABASE_OWNER_URL": urls[1]}
    subprocess.run([sys.executable, "-m", "services.api", "migrate"], env=environment, check=True, timeout=60)
    with psycopg2.connect(urls[0]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM api.step_event")
    connection.close()
