"""Settings: read once from the environment by each process's `__main__`, all errors at once.

Every key starts with `MILLSTREAM_`; `__` separates a section from its field, and every secret key `K` may
be given as `K_FILE`, the path of a file that holds the value. A service declares which sections it needs:

    class Settings(BaseModel):
        model_config = ConfigDict(frozen=True)
        kafka: Kafka

    settings = load(Settings, os.environ)
    log.info("started", settings=masked(settings))

A key with our prefix that no section of this module knows is refused, so that a typing mistake is never
taken for a default. Keys of sections that a service does not use are allowed: one file of settings may
serve all processes.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from services.runtime.setting_values import (
    AtOnce,
    CallCount,
    DatabaseUrl,
    Host,
    Keys,
    Networks,
    PemFile,
    Port,
    StepCount,
    check_blob_url,
    check_bootstrap,
    checked,
    from_json,
    parse_secrets,
    tenant_names,
)

S = TypeVar("S", bound=BaseModel)

PREFIX = "MILLSTREAM_"


class SettingsError(Exception):
    """The environment is not usable; `problems` holds one line per mistake, none with a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Section(BaseModel):
    """One group of settings; `prefix` comes before each field's name in its key."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prefix: ClassVar[str]


class Kafka(Section):
    """The broker, the protocol by which group members share its partitions, and how clients sign in to it."""

    prefix = "KAFKA__"
    bootstrap_servers: Annotated[str, AfterValidator(check_bootstrap), Field(description="host:port[,...]")]
    group_protocol: Annotated[Literal["classic", "consumer"], Field(description="classic or consumer")] = (
        "classic"
    )
    security__protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_SSL"], Field(description="PLAINTEXT, SSL or SASL_SSL")
    ] = "PLAINTEXT"
    security__mechanism: Annotated[
        Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"],
        Field(description="SCRAM-SHA-512, SCRAM-SHA-256, PLAIN or OAUTHBEARER"),
    ] = "SCRAM-SHA-512"
    security__username: str = ""
    security__password: SecretStr = SecretStr("")
    security__ca: PemFile = None
    security__certificate: PemFile = None
    security__key: PemFile = None
    security__key_password: SecretStr = SecretStr("")
    security__oauth_token_url: Annotated[
        str, Field(pattern=r"^(https?://[^\s/]+[^\s]*)?$", description="http(s)://host[:port]/path")
    ] = ""
    security__oauth_client_id: str = ""
    security__oauth_client_secret: SecretStr = SecretStr("")
    security__oauth_scope: str = ""


class Database(Section):
    """The process's own role in PostgreSQL."""

    prefix = "DATABASE_"
    url: DatabaseUrl


class DatabaseOwner(Section):
    """The role that owns api's tables, for `python -m services.api migrate` alone."""

    prefix = "DATABASE_OWNER_"
    url: DatabaseUrl = SecretStr("")


class Blobs(Section):
    """The blob store."""

    prefix = "BLOBS__"
    url: Annotated[
        str,
        AfterValidator(check_blob_url),
        Field(description="file:///an/absolute/folder or s3://bucket/prefix"),
    ]


class Files(Section):
    """Keys that seal files at rest (the first seals, all open), and how new files are compressed."""

    prefix = "FILES__"
    keys: Keys
    compression: Annotated[Literal["none", "zstd", "gzip"], Field(description="none, zstd or gzip")] = "zstd"


class Sealing(Section):
    """Keys that seal secrets at rest: the first seals, all open."""

    prefix = "SEALING__"
    keys: Keys


class Links(Section):
    """Keys that sign file links (the first signs, all verify) and how long a link lives."""

    prefix = "LINKS__"
    keys: Keys
    ttl_s: Annotated[int, Field(ge=1, le=604_800, description="seconds, 1 to 604800")] = 3600


class Api(Section):
    """Where api listens, the address that clients see, the proxies whose `X-Forwarded-For` counts, and what
    one key may take at once (one address five times as much)."""

    prefix = "API__"
    host: Host = "127.0.0.1"
    port: Port = 8080
    public_url: Annotated[
        str, Field(pattern=r"^https?://[^\s/]+[^\s]*$", description="http(s)://host[:port]")
    ] = ""
    trusted_proxies: Networks = ()
    connections: AtOnce = 200
    requests_per_s: AtOnce = 500
    waits: AtOnce = 100
    streams: AtOnce = 20
    downloads: AtOnce = 32

    @model_validator(mode="before")
    @classmethod
    def _derive_public_url(cls, values: dict[str, Any]) -> dict[str, Any]:
        own = f"http://{values.get('host', '127.0.0.1')}:{values.get('port', 8080)}"
        return {"public_url": own, **values}


class Health(Section):
    """Where every process serves /livez, /readyz and /metrics, apart from all else."""

    prefix = "HEALTH__"
    host: Host = "127.0.0.1"
    port: Port


class Secrets(Section):
    """What `${secrets.<name>}` stands for in headers and data of API steps, for each tenant."""

    prefix = ""
    secrets: Annotated[
        SecretStr,
        checked(parse_secrets),
        Field(
            description='JSON, {"tenant": {"name": "value"}}, names of letters, digits, _ and -, values of'
            " 4 to 4096 characters"
        ),
    ] = SecretStr("{}")


class Sources(Section):
    """Source databases by lower-case name, as `MILLSTREAM_SOURCES__<NAME>`."""

    prefix = "SOURCES__"
    urls: dict[str, DatabaseUrl] = {}


class SourceTenants(Section):
    """The tenants that may use a source, as `MILLSTREAM_SOURCES__<NAME>__TENANTS`; without it: none."""

    prefix = "SOURCES__"
    tenants: dict[str, Annotated[tuple[str, ...], BeforeValidator(tenant_names)]] = {}


class Worker(Section):
    """How many short steps, exports and calls (API steps) run at once, and where step logs are written."""

    prefix = "WORKER__"
    lanes: Annotated[int, Field(ge=1, le=64, description="a number of lanes, 1 to 64")] = 2
    long_lanes: Annotated[int, Field(ge=1, le=64, description="a number of lanes, 1 to 64")] = 2
    calls: CallCount = 200
    calls_per_destination: CallCount = 16
    calls_per_tenant: CallCount = 32
    log_folder: Annotated[Path, Field(description="the path of a folder")] = Path("executor_logs")
    log_days: Annotated[int, Field(ge=1, le=3650, description="a number of days, 1 to 3650")] = 30


class Loop(Section):
    """The processor of records in api, manager and notifier: the memory that states may take, in bytes."""

    prefix = "LOOP__"
    cache_bytes: Annotated[
        int, Field(ge=1 << 20, le=1 << 36, description="a number of bytes, 1 MiB to 64 GiB")
    ] = 128 << 20


class Budget(Section):
    """What one execution may lead to before it fails: events, their bytes in the log, steps that ended."""

    prefix = "BUDGET__"
    events: Annotated[int, Field(ge=100, le=10**7, description="a number, 100 to 10000000")] = 100_000
    bytes: Annotated[int, Field(ge=1 << 20, le=1 << 30, description="a number, 1 MiB to 1 GiB")] = 8 << 20
    step_runs: Annotated[int, Field(ge=1, le=1000, description="a number, 1 to 1000")] = 1000


class Quota(Section):
    """How many executions of a tenant may run and wait at one time: of any, and of those that are named."""

    prefix = "QUOTA__"
    executions: Annotated[int, Field(ge=0, le=10**9, description="a number, 0 to 1000000000")] = 100_000
    tenants: Annotated[
        Mapping[str, Annotated[int, Field(ge=0, le=10**9)]],
        BeforeValidator(from_json),
        Field(description='JSON, {"tenant": 500000}, of numbers from 0 to 1000000000'),
    ] = {}

    def of(self, tenant: str) -> int:
        """The tenant's own quota."""
        return self.tenants.get(tenant, self.executions)


class Dispatch(Section):
    """How many steps of an index are out at most: short ones, exports, calls (API steps), one tenant's."""

    prefix = "DISPATCH__"
    short_window: StepCount = 256
    long_window: StepCount = 16
    call_window: StepCount = 128
    calls_per_tenant: StepCount = 16


class Outbound(Section):
    """Networks that callbacks and API steps may reach although they are private."""

    prefix = "OUTBOUND__"
    allow: Networks = ()


class Deliveries(Section):
    """Attempts of callbacks at once: in all, of which a tenant has at most half, and to one destination."""

    prefix = "DELIVERIES__"
    slots: Annotated[int, Field(ge=2, le=10_000, description="a number of attempts, 2 to 10000")] = 256
    destination_slots: Annotated[
        int, Field(ge=1, le=10_000, description="a number of attempts, 1 to 10000")
    ] = 8


class Client(Section):
    """Where the `millstream` command finds the API, unless a context says so."""

    prefix = "CLIENT__"
    url: Annotated[
        str | None, Field(pattern=r"^https?://[^\s/]+[^\s]*$", description="http(s)://host[:port]")
    ] = None
    key: SecretStr = SecretStr("")
    context: Annotated[str | None, Field(min_length=1, description="the name of a context")] = None


class Crash(Section):
    """Tests only: the point at which the process kills itself, and the file that remembers it."""

    prefix = "CRASH__"
    point: Annotated[str | None, Field(min_length=1, description="the name of a crash point")] = None
    mark: Annotated[Path | None, Field(description="the path of a file")] = None


SECTIONS: tuple[type[Section], ...] = (
    Api, Blobs, Budget, Client, Crash, Database, DatabaseOwner, Deliveries, Files, Health, Kafka, Links,
    Outbound, Sealing, Dispatch, Loop, Quota, Secrets, SourceTenants, Sources, Worker,
)  # fmt: skip

OPEN: Mapping[type[Section], str] = {Sources: "", SourceTenants: "__TENANTS"}
"""Sections whose keys are `<prefix><NAME><suffix>`, one for each name that somebody chose."""


def is_secret(section: type[Section], field: str) -> bool:
    """Whether the field holds a secret: it is masked, and may be given as a file."""
    return section is Sources or section.model_fields[field].annotation is SecretStr


def keys_of(section: type[Section]) -> dict[str, str]:
    """Full key -> field name of one section; those of OPEN have no fixed keys."""
    if section in OPEN:
        return {}
    return {f"{PREFIX}{section.prefix}{name.upper()}": name for name in section.model_fields}


def known_keys() -> frozenset[str]:
    """Every fixed key of every section, with the `_FILE` form of the secrets."""
    known: set[str] = set()
    for section in SECTIONS:
        for key, field in keys_of(section).items():
            known |= {key, f"{key}_FILE"} if is_secret(section, field) else {key}
    return frozenset(known)


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    known = known_keys()
    for key in sorted(environ):
        if not key.startswith(PREFIX) or key in known or any(_name(section, key) for section in OPEN):
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        hint = f"did you mean {near[0]}?" if near else "remove it, or see deploy/env.example"
        yield f"{key}: expected a setting that exists, found an unknown key; {hint}"


def open_key(section: type[Section], name: str) -> str:
    """The key of one name in a section of OPEN."""
    return f"{PREFIX}{section.prefix}{name.upper()}{OPEN[section]}"


def _name(section: type[Section], key: str) -> str | None:
    """The name that a key of a section of OPEN is about."""
    file = "(_FILE)?" if section is Sources else ""
    match = re.fullmatch(f"{PREFIX}{section.prefix}([A-Z][A-Z0-9_]*?){OPEN[section]}{file}", key)
    if match is None or (section is Sources and match[1].endswith(OPEN[SourceTenants])):
        return None
    return match[1].lower()


def _secret(key: str, environ: Mapping[str, str], problems: list[str]) -> str | None:
    path = environ.get(f"{key}_FILE")
    if path is None:
        return environ.get(key)
    if key in environ:
        problems.append(f"{key}: expected one of {key} and {key}_FILE, found both; remove one")
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        problems.append(f"{key}_FILE: expected a readable file, found {path!r} ({reason})")
        return None


def _raw(section: type[Section], environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    if section in OPEN:
        names = sorted({name for key in environ if (name := _name(section, key))})
        keys = {name: open_key(section, name) for name in names}
        found = {name: _secret(key, environ, problems) for name, key in keys.items()}
        (field,) = section.model_fields
        return {field: {name: value for name, value in found.items() if value is not None}}
    raw: dict[str, Any] = {}
    for key, field in keys_of(section).items():
        secret = is_secret(section, field)
        value = _secret(key, environ, problems) if secret else environ.get(key)
        if value is not None:
            raw[field] = value
    return raw


def _describe(section: type[Section], raw: dict[str, Any], error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        field = str(detail["loc"][0])
        if section in OPEN:
            key = open_key(section, str(detail["loc"][1]))
            expected = "postgresql://..." if section is Sources else "tenant[,...], or * for all"
        else:
            key = f"{PREFIX}{section.prefix}{field.upper()}"
            expected = section.model_fields[field].description or str(detail["msg"])
        if field not in raw:
            found = f"nothing; set it{', or its _FILE form' if is_secret(section, field) else ''}"
        else:
            found = (
                "a value of another form (secret, not shown)"
                if is_secret(section, field)
                else repr(raw[field][detail["loc"][1]] if section in OPEN else raw[field])
            )
        yield f"{key}: expected {expected}, found {found}"


def _sections_of(cls: type[BaseModel]) -> dict[str, type[Section]]:
    found: dict[str, type[Section]] = {}
    for name, field in cls.model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            raise TypeError(f"{cls.__name__}.{name} must be one of the sections of runtime/settings.py")
        found[name] = field.annotation
    return found


def load(cls: type[S], environ: Mapping[str, str]) -> S:
    """Build `cls`, whose fields are sections of this module, from the environment.

    Raises SettingsError with every problem at once, one line each: key, expected, found.
    """
    problems = list(_unknown(environ))
    values: dict[str, Section] = {}
    for name, section in _sections_of(cls).items():
        before = len(problems)
        raw = _raw(section, environ, problems)
        try:
            values[name] = section.model_validate(raw)
        except ValidationError as error:
            if len(problems) == before:  # an unreadable file is not also a missing value
                problems.extend(_describe(section, raw, error))
    if "crash" in values:
        problems.extend(_half_crash(environ))
    if isinstance(kafka := values.get("kafka"), Kafka):
        problems.extend(_half_security(kafka, environ))
    if problems:
        raise SettingsError(problems)
    return cls.model_validate(values)


def kafka_at(bootstrap_servers: str, environ: Mapping[str, str]) -> Kafka:
    """The broker at an address, signed in to as the environment says. Raises SettingsError."""
    key = f"{PREFIX}{Kafka.prefix}BOOTSTRAP_SERVERS"
    return load(_KafkaAlone, {**environ, key: bootstrap_servers}).kafka


class _KafkaAlone(BaseModel):
    kafka: Kafka


def _half_crash(environ: Mapping[str, str]) -> Iterator[str]:
    point, mark = f"{PREFIX}CRASH__POINT", f"{PREFIX}CRASH__MARK"
    if (point in environ) != (mark in environ):
        yield f"{point}: expected together with {mark}, found only one of them; set both or none"


def _half_security(kafka: Kafka, environ: Mapping[str, str]) -> Iterator[str]:
    """What a client could not connect with, and what would go unused and leave the connection plain."""
    prefix = f"{PREFIX}{Kafka.prefix}SECURITY__"
    protocol, mechanism = kafka.security__protocol, kafka.security__mechanism
    oauth = ("OAUTH_TOKEN_URL", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET")
    for name in oauth if mechanism == "OAUTHBEARER" else ("USERNAME", "PASSWORD"):
        value = getattr(kafka, f"security__{name.lower()}")
        if protocol == "SASL_SSL" and not (
            value.get_secret_value() if isinstance(value, SecretStr) else value
        ):
            yield f"{prefix}{name}: expected a value with SASL_SSL and {mechanism}, found nothing; set it"
    if (kafka.security__certificate is None) != (kafka.security__key is None):
        yield f"{prefix}CERTIFICATE: expected together with {prefix}KEY, found only one of them; set both"
    given = sorted(key for key in environ if key.startswith(prefix) and key != f"{prefix}PROTOCOL")
    if protocol == "PLAINTEXT" and given:
        yield f"{prefix}PROTOCOL: expected SSL or SASL_SSL beside {', '.join(given)}, found PLAINTEXT"


def _mask(value: object) -> object:
    if isinstance(value, SecretStr):
        parts = urlsplit(value.get_secret_value())
        if parts.scheme and parts.hostname:
            user = f"{parts.username}:***@" if parts.username else ""
            port = f":{parts.port}" if parts.port else ""
            return urlunsplit((parts.scheme, f"{user}{parts.hostname}{port}", parts.path, "", ""))
        return "***"
    if isinstance(value, BaseModel):
        return {name: _mask(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {name: _mask(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return value if value is None or isinstance(value, int | str) else str(value)


def masked(settings: BaseModel) -> dict[str, object]:
    """The effective settings as plain JSON values for the start log, every secret hidden."""
    return {name: _mask(getattr(settings, name)) for name in type(settings).model_fields}


def sqlalchemy_url(url: str) -> str:
    """The URL with our driver named: SQLAlchemy 2.1 maps a bare `postgresql://` to another driver."""
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", url)
