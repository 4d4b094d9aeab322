"""The broker and the database of a local stack: ours in the data folder, or the user's by URL."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from confluent_kafka import KafkaException
from pydantic import BaseModel, ConfigDict

from services.cli import topics
from services.cli.dev import jars, roles, sample, screen
from services.cli.dev.broker import Broker, answers
from services.cli.dev.folder import DevError, Folder, new_password, until, write_private
from services.cli.dev.parts import OWNED_APART, SCHEMAS, SOURCE
from services.cli.dev.postgres import Postgres, reachable
from services.runtime import kafka
from services.runtime.settings import (
    PREFIX,
    Api,
    Crash,
    Database,
    Kafka,
    Outbound,
    SettingsError,
    Sources,
    SourceTenants,
    Worker,
    load,
)

FOREIGN_TIMEOUT_S = 30.0


class GivenDatabase(BaseModel):
    """The user's own PostgreSQL."""

    model_config = ConfigDict(frozen=True)
    database: Database


class GivenKafka(BaseModel):
    """The user's own broker."""

    model_config = ConfigDict(frozen=True)
    kafka: Kafka


class Passed(BaseModel):
    """What `dev` hands on to the processes; read here so that a mistake shows before anything starts."""

    model_config = ConfigDict(frozen=True)
    api: Api
    crash: Crash
    outbound: Outbound
    sources: Sources
    source_tenants: SourceTenants
    worker: Worker


def given_database(environ: Mapping[str, str]) -> str | None:
    """The URL of the user's own server, when there is one. Raises SettingsError."""
    load(Passed, environ)
    if not {f"{PREFIX}DATABASE_URL", f"{PREFIX}DATABASE_URL_FILE"} & environ.keys():
        return None
    return load(GivenDatabase, environ).database.url.get_secret_value()


def given_kafka(environ: Mapping[str, str]) -> Kafka | None:
    """The user's own broker, when there is one. Raises SettingsError."""
    address = f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS"
    if address in environ:
        return load(GivenKafka, environ).kafka
    if given := sorted(key for key in environ if key.startswith(f"{PREFIX}KAFKA__SECURITY__")):
        ours = "the broker that `millstream dev` starts is plain, on loopback"
        raise SettingsError([f"{given[0]}: expected beside {address}, found it alone; {ours}"])
    return None


def broker(folder: Folder, ports: Mapping[str, int]) -> Broker:
    """Our own broker, not started. Raises DevError when Java, Maven or the jars are missing."""
    jars.java_version()
    if not jars.cache_folder().is_dir():
        screen.note("Maven fetches the broker, once for this machine; on a slow line that takes minutes")
        with screen.part("jars", f"fetched by Maven into {jars.cache_folder()}"):
            jars.ensure()
    return Broker(folder.kafka, jars.ensure(), folder.log("kafka"), ports["kafka"], ports["controller"])


def postgres(folder: Folder, ports: Mapping[str, int]) -> Postgres:
    """Our own database server, not started."""
    password = folder.secret("postgres-password", new_password).read_text()
    return Postgres(folder.postgres, folder.log("postgres"), ports["postgres"], password)


def apply_topics(settings: Kafka) -> str:
    """Create and verify the topics; a summary. Raises DevError with every difference."""
    until(
        lambda: answers(settings),
        FOREIGN_TIMEOUT_S,
        f"Kafka at {settings.bootstrap_servers}",
    )
    try:
        with kafka.Admin(settings, "millstream-dev") as admin:
            created, different = topics.apply_to(admin)
    except KafkaException as error:
        raise DevError(f"topics: expected the broker to create and describe them, found {error}") from None
    if different:
        raise DevError("topics: expected those of schemas/topics.yaml, found:\n  " + "\n  ".join(different))
    return f"{len(topics.declared())} as declared, {len(created)} of them new"


@dataclass(frozen=True)
class Databases:
    """Where the data is: schema -> file with its role's URL, and the two URLs of the source database.

    `owner_url_file` holds the URL of the role that owns the tables of the service OWNED_APART.
    """

    url_files: Mapping[str, Path]
    owner_url_file: Path
    superuser_url: str
    source_loader_url: str
    source_reader_file: Path
    identity: str
    """Names the server, so that an API key made on one is not shown for another; empty for our own."""


def own_databases(folder: Folder, server: Postgres) -> Databases:
    """Roles, schemas and the source database on our own server, made or refreshed."""
    admin = server.url("postgres")
    roles.ensure_database(admin, roles.DATABASE)
    main = server.url(roles.DATABASE)
    urls = roles.ensure_schemas(main, _passwords(folder))
    owner_url = roles.ensure_owner(main, OWNED_APART, _owner_password(folder))
    owner, reader = (
        folder.secret(f"{SOURCE}-{who}-password", new_password).read_text() for who in ("owner", "reader")
    )
    loader_url, reader_url = roles.ensure_source(admin, SOURCE, owner, reader)
    sample.ensure(loader_url)
    return _databases(folder, urls, owner_url, main, loader_url, reader_url, "")


def foreign_databases(folder: Folder, url: str) -> Databases:
    """Roles and schemas on the user's server; its one role for everything when it may not make roles."""
    problem = reachable(url)
    if problem is not None:
        raise DevError(f"MILLSTREAM_DATABASE_URL: expected a server that answers, found: {problem}")
    if roles.may_create_roles(url):
        try:
            urls = roles.ensure_schemas(url, _passwords(folder))
            owner_url = roles.ensure_owner(url, OWNED_APART, _owner_password(folder))
        except psycopg2.Error as error:
            raise DevError(
                f"MILLSTREAM_DATABASE_URL: expected to make roles and schemas, found: {error}"
            ) from None
    else:
        screen.note(
            "the role of MILLSTREAM_DATABASE_URL may not create roles: every process uses it as it is"
        )
        urls, owner_url = dict.fromkeys(SCHEMAS, url), url
    host = url.rpartition("@")[2].partition("?")[0]
    identity = hashlib.sha256(host.encode()).hexdigest()[:8]
    return _databases(folder, urls, owner_url, url, url, url, f"-{identity}")


def _passwords(folder: Folder) -> dict[str, str]:
    return {schema: folder.secret(f"ms-{schema}-password", new_password).read_text() for schema in SCHEMAS}


def _owner_password(folder: Folder) -> str:
    return folder.secret(f"ms-{OWNED_APART}-owner-password", new_password).read_text()


def _databases(
    folder: Folder,
    urls: Mapping[str, str],
    owner_url: str,
    main: str,
    loader_url: str,
    reader_url: str,
    identity: str,
) -> Databases:
    files = {schema: folder.secrets / f"database-url-{schema}" for schema in urls}
    for schema, url in urls.items():
        write_private(files[schema], url)
    reader_file = folder.secrets / f"source-url-{SOURCE}"
    write_private(reader_file, reader_url)
    owner_file = folder.secrets / f"database-owner-url-{OWNED_APART}"
    write_private(owner_file, owner_url)
    return Databases(files, owner_file, main, loader_url, reader_file, identity)
