"""`millstream doctor`: what is wrong with the local stack, and the command that mends it."""

import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg2
import typer
from confluent_kafka import KafkaException

from services.cli import config, letters, topics
from services.cli import log as logs
from services.cli.dev import jars, postgres, roles, servers
from services.cli.dev.broker import answers
from services.cli.dev.child import degraded, readiness
from services.cli.dev.command import DataFolder, folder_of
from services.cli.dev.folder import DEFAULT_DATA, DevError, Folder, port_is_free
from services.cli.dev.parts import OWNED_APART, PARTS, PORTS, SCHEMAS
from services.cli.failure import Failed
from services.contracts.topics import Kind
from services.runtime import kafka
from services.runtime.settings import (
    PREFIX,
    Kafka,
    SettingsError,
    Sources,
    SourceTenants,
    kafka_at,
    load,
    open_key,
)

PROBE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Finding:
    """Something wrong, and the command or change that mends it; a `warning` is what may stay as it is."""

    what: str
    mend: str
    warning: bool = False


@dataclass(frozen=True)
class Patient:
    """What the checks look at: the data folder, what its owner recorded, and the environment."""

    folder: Folder
    state: Mapping[str, Any]
    owned: bool
    environ: Mapping[str, str]

    @property
    def dev(self) -> str:
        """The command that starts this stack."""
        given = "" if self.folder.root == DEFAULT_DATA.resolve() else f" --data {self.folder.root}"
        return f"millstream dev{given}"

    @property
    def kafka(self) -> Kafka | None:
        """The broker: the user's, else that of the running stack."""
        try:
            given = servers.given_kafka(self.environ)
            recorded: str | None = self.state.get("kafka_bootstrap") if self.owned else None
            return given or (kafka_at(recorded, self.environ) if recorded else None)
        except SettingsError:
            return None  # check_settings says so

    @property
    def again(self) -> str:
        """How to start this running stack anew."""
        return f"kill {self.state.get('pid')}; {self.dev}"


def check_settings(patient: Patient) -> list[Finding]:
    """The settings of the environment can be read."""
    try:
        servers.given_database(patient.environ)
        servers.given_kafka(patient.environ)
    except SettingsError as error:
        return [Finding(line, "correct or unset it") for line in error.problems]
    return []


def check_sources(patient: Patient) -> list[Finding]:
    """Every source that has an address is open to somebody: in the running stack, else in the environment."""
    running = config.of_stack(patient.folder) if patient.owned else {}
    try:
        given = load(servers.Passed, running or patient.environ)
    except SettingsError:
        return []  # check_settings says so
    restart = f"; then {patient.again}" if running else ", for api and the workers"
    return [
        Finding(
            f"{open_key(Sources, name)}: expected beside {open_key(SourceTenants, name)}, found it alone:"
            f" source {name} is closed to everybody",
            f"set {open_key(SourceTenants, name)}=tenant[,...], or * for all{restart}",
        )
        for name in sorted(given.sources.urls.keys() - given.source_tenants.tenants.keys())
    ]


def check_java(patient: Patient) -> list[Finding]:
    """Java is there, unless the broker is the user's."""
    if patient.environ.get(f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS"):
        return []
    try:
        jars.java_version()
    except DevError as error:
        return [Finding(str(error), "apt install openjdk-17-jre-headless")]
    return []


def check_maven(patient: Patient) -> list[Finding]:
    """Maven is there while the jars are not."""
    if patient.environ.get(f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS") or jars.cache_folder().is_dir():
        return []
    try:
        jars.maven()
    except DevError as error:
        return [Finding(str(error), "apt install maven")]
    return []


def check_jars(patient: Patient) -> list[Finding]:
    """The broker's jars are fetched."""
    if patient.environ.get(f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS") or jars.cache_folder().is_dir():
        return []
    return [Finding(f"Kafka's jars: expected in {jars.cache_folder()}, found none", patient.dev)]


def check_server_programs(patient: Patient) -> list[Finding]:
    """The embedded PostgreSQL is installed, unless the server is the user's."""
    if {f"{PREFIX}DATABASE_URL", f"{PREFIX}DATABASE_URL_FILE"} & patient.environ.keys():
        return []
    try:
        postgres.binaries()
    except DevError as error:
        return [Finding(str(error), "make setup")]
    return []


def check_running(patient: Patient) -> list[Finding]:
    """A supervisor owns the data folder and has brought everything up."""
    status = patient.state.get("status", "never started")
    if not patient.owned:
        died = " (it was killed; the next start cleans up)" if status in ("ready", "starting") else ""
        return [Finding(f"millstream dev: expected to run, found that it does not{died}", patient.dev)]
    if status != "ready":
        return [Finding(f"millstream dev: expected to be ready, found {status}", "wait, or read its output")]
    return []


def check_ports(patient: Patient) -> list[Finding]:
    """Recorded ports listen; without a running stack, a port that the user demands is free."""
    if patient.owned:
        return [
            Finding(f"port {port} ({name}): expected to listen, found nothing there", patient.again)
            for name, port in patient.state.get("ports", {}).items()
            if _recorded_as_ours(patient, name) and not _listens(port)
        ]
    demanded = patient.environ.get(f"{PREFIX}API__PORT")
    if demanded and demanded.isdigit() and not port_is_free(int(demanded)):
        mend = f"stop what listens there, or unset {PREFIX}API__PORT and a free port is chosen"
        return [Finding(f"{PREFIX}API__PORT={demanded}: expected a free port, found it taken", mend)]
    return []


def _recorded_as_ours(patient: Patient, name: str) -> bool:
    owner = "kafka" if name == "controller" else name.removesuffix("-health")
    return name in PORTS and patient.state.get("pids", {}).get(owner) is not None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check_database(patient: Patient) -> list[Finding]:
    """The user's own server answers; in a running stack, each role can log in and owns its schema."""
    try:
        given = servers.given_database(patient.environ)
    except SettingsError:
        return []  # check_settings says so
    if given is not None and (problem := postgres.reachable(given)):
        what = f"{PREFIX}DATABASE_URL: expected a server that answers, found: {problem}"
        return [Finding(what, "start that server, or correct the URL")]
    if not patient.owned:
        return []
    findings: list[Finding] = []
    for schema in SCHEMAS:
        path = patient.state.get("database_url_files", {}).get(schema)
        if path is None:
            continue
        try:
            findings += _check_role(patient, schema, Path(path).read_text(encoding="utf-8").strip())
        except OSError as error:
            findings.append(
                Finding(f"{path}: expected the URL of {schema}'s role, found {error}", patient.dev)
            )
    return findings


def _check_role(patient: Patient, schema: str, url: str) -> list[Finding]:
    role = urlsplit(url).username
    try:
        connection = psycopg2.connect(url, connect_timeout=int(PROBE_TIMEOUT_S))
    except psycopg2.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        return [Finding(f"role {role}: expected to log in, found: {reason}", patient.again)]
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = %s", (schema,))
            row = cursor.fetchone()
    finally:
        connection.close()
    owner = row[0].strip('"') if row else None
    wanted = f"{role}_owner" if schema == OWNED_APART and role == f"ms_{schema}" else role
    if owner != wanted:
        found = f"owner {owner}" if owner else "no such schema"
        return [Finding(f"schema {schema}: expected owner {wanted}, found {found}", patient.again)]
    return []


_MAY_CHANGE = """
    SELECT current_user FROM pg_class AS word JOIN pg_namespace AS place ON place.oid = word.relnamespace
    WHERE place.nspname = 'api' AND word.relname = 'step_event'
      AND (pg_has_role(word.relowner, 'USAGE') OR pg_has_role(place.nspowner, 'USAGE')
           OR has_table_privilege(word.oid, 'UPDATE, DELETE, TRUNCATE'))
"""


def check_append_only(patient: Patient) -> list[Finding]:
    """The role with which api runs can add to the words of steps, and neither change nor remove any."""
    path = patient.state.get("database_url_files", {}).get(OWNED_APART) if patient.owned else None
    if path is None:
        return []
    try:
        with roles.session(Path(path).read_text(encoding="utf-8").strip()) as cursor:
            cursor.execute(_MAY_CHANGE)
            row = cursor.fetchone()
    except (OSError, psycopg2.Error):
        return []  # check_database says so
    if row is None:
        return []
    what = f"api.step_event: expected a role that can only add to it, found that role {row[0]} may change it"
    mend = f"give {PREFIX}DATABASE_URL a role that may create roles: dev then makes one that owns the table"
    return [Finding(what, mend, warning=True)]


def check_topics(patient: Patient) -> list[Finding]:
    """The broker answers and every topic is as declared."""
    settings = patient.kafka
    if settings is None:
        return []
    bootstrap = settings.bootstrap_servers
    if not answers(settings):
        what = f"Kafka at {bootstrap}: expected to answer, found that it does not"
        return [
            Finding(what, patient.again if patient.owned else "start that broker, or correct the address")
        ]
    apply = f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS={bootstrap} millstream topics apply"
    try:
        with kafka.Admin(settings, "millstream-doctor") as admin:
            return [Finding(line, apply) for line in topics.differences(admin, topics.declared())]
    except KafkaException as error:
        return [Finding(f"topics: expected the broker to describe them, found {error}", apply)]


def check_dead_letters(patient: Patient) -> list[Finding]:
    """No record that was given up waits for somebody."""
    settings = patient.kafka
    if settings is None or not answers(settings):
        return []  # check_topics says so
    names = [topic.name for topic in topics.declared() if topic.kind is Kind.DEAD_LETTER]
    try:
        with logs.opened(settings) as log:
            open_ = Counter(found.record.topic for found in letters.read(log, names) if not found.settled_by)
    except Failed:
        return []  # a topic is missing, and check_topics says so
    return [
        Finding(
            f"{topic}: expected no dead letter that waits for somebody, found {count}",
            f"millstream dlq list --topic {topic.removesuffix('.dlq')}; then dlq show, resend or discard",
        )
        for topic, count in sorted(open_.items())
    ]


def check_processes(patient: Patient) -> list[Finding]:
    """Every process runs and says that it is ready."""
    if not patient.owned:
        return []
    findings: list[Finding] = []
    for part in PARTS:
        pid = patient.state.get("pids", {}).get(part.name)
        port = int(patient.state.get("ports", {}).get(part.health, 0))
        log = f"less {patient.folder.logs / f'{part.name}.log'}"
        if pid is None or not psutil.pid_exists(pid):
            findings.append(Finding(f"{part.name}: expected a running process, found none (pid {pid})", log))
        elif problem := readiness(port):
            findings.append(Finding(f"{part.name}: expected to be ready, found {problem}", log))
        else:
            findings += [
                Finding(f"{part.name}: works, but {reason}", log, warning=True) for reason in degraded(port)
            ]
    return findings


Check = Callable[[Patient], list[Finding]]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("settings", check_settings),
    ("sources", check_sources),
    ("java", check_java),
    ("maven", check_maven),
    ("jars", check_jars),
    ("postgresql programs", check_server_programs),
    ("supervisor", check_running),
    ("ports", check_ports),
    ("database roles", check_database),
    ("append-only table", check_append_only),
    ("topics", check_topics),
    ("dead letters", check_dead_letters),
    ("processes", check_processes),
)


def doctor(context: typer.Context, data: DataFolder = None) -> None:
    """Name everything that is wrong and the command that mends it; exit code 1 when something is."""
    folder = folder_of(context, data)
    patient = Patient(folder, folder.state(), folder.is_owned(), os.environ)
    wrong = 0
    for name, check in CHECKS:
        findings = check(patient)
        wrong += sum(not finding.warning for finding in findings)
        if not findings:
            typer.secho(f"  ok  {name}", fg=typer.colors.GREEN)
        for finding in findings:
            sign, colour = ("??", typer.colors.YELLOW) if finding.warning else ("!!", typer.colors.RED)
            typer.secho(f"  {sign}  {finding.what}", fg=colour)
            typer.echo(f"      mend: {finding.mend}")
    if wrong:
        raise typer.Exit(1)
