"""Settings: every mistake at once, no secret shown, no misspelt key taken for a default."""

import base64
from pathlib import Path

import pytest
from confluent_kafka import Producer
from pydantic import BaseModel, ConfigDict

from services.runtime import kafka, setting_values, settings
from services.runtime.settings import SettingsError, load, masked

KEY = base64.b64encode(b"k" * 32).decode()
CANARY = "canary-7f3a"
GOOD = {
    "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": "a:9092,b:9092",
    "MILLSTREAM_DATABASE_URL": f"postgresql://role:{CANARY}@db:5432/millstream",
    "MILLSTREAM_SEALING__KEYS": f"new:{KEY},old:{KEY}",
    "MILLSTREAM_SOURCES__FLIGHTS": f"postgresql://reader:{CANARY}@db/flights",
    "MILLSTREAM_SOURCES__FLIGHTS__TENANTS": "acme, beta@corp",
    "MILLSTREAM_OUTBOUND__ALLOW": "127.0.0.0/8, 10.1.0.0/16",
    "MILLSTREAM_SECRETS": f'{{"acme": {{"shop": "{CANARY}"}}}}',
    "HOME": "/nowhere",
}


class Everything(BaseModel):
    """More sections than any one service has."""

    model_config = ConfigDict(frozen=True)
    api: settings.Api
    crash: settings.Crash
    database: settings.Database
    kafka: settings.Kafka
    outbound: settings.Outbound
    sealing: settings.Sealing
    secrets: settings.Secrets
    sources: settings.Sources
    source_tenants: settings.SourceTenants
    worker: settings.Worker


def test_good_settings_load() -> None:
    loaded = load(Everything, GOOD)
    assert loaded.kafka.bootstrap_servers == "a:9092,b:9092"
    assert loaded.worker.lanes == 2
    assert loaded.api.public_url == "http://127.0.0.1:8080"
    assert [str(network) for network in loaded.outbound.allow] == ["127.0.0.0/8", "10.1.0.0/16"]
    assert loaded.source_tenants.tenants == {"flights": ("acme", "beta@corp")}
    assert loaded.sources.urls["flights"].get_secret_value().endswith("/flights")
    assert setting_values.parse_secrets(loaded.secrets.secrets.get_secret_value()) == {
        "acme": {"shop": CANARY}
    }
    assert list(setting_values.parse_keys(loaded.sealing.keys.get_secret_value())) == ["new", "old"]


def test_secrets_are_masked_everywhere() -> None:
    loaded = load(Everything, GOOD)
    text = f"{masked(loaded)} {loaded!r} {loaded}"
    assert CANARY not in text
    assert KEY not in text
    assert masked(loaded)["database"] == {"url": "postgresql://role:***@db:5432/millstream"}


BAD = [
    ("MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS", "a", "expected host:port[,...], found 'a'"),
    ("MILLSTREAM_API__PORT", "0", "expected a port number, 1 to 65535, found '0'"),
    ("MILLSTREAM_API__PUBLIC_URL", "ftp://x", "expected http(s)://host[:port], found 'ftp://x'"),
    ("MILLSTREAM_WORKER__LANES", "many", "expected a number of lanes, 1 to 64, found 'many'"),
    ("MILLSTREAM_OUTBOUND__ALLOW", "10.0.0.1/8", "expected networks as CIDR"),
    ("MILLSTREAM_DATABASE_URL", f"mysql://{CANARY}@db/x", "expected postgresql://"),
    ("MILLSTREAM_SEALING__KEYS", f"k1:{CANARY}", "expected kid:base64(32 bytes)"),
    ("MILLSTREAM_SEALING__KEYS", f"k1:{KEY},k1:{KEY}", "ids unique"),
    ("MILLSTREAM_SOURCES__FLIGHTS", CANARY, "expected postgresql://"),
    ("MILLSTREAM_SOURCES__FLIGHTS__TENANTS", "acme,", "expected tenant[,...], or * for all, found 'acme,'"),
    ("MILLSTREAM_SOURCES__FLIGHTS__TENANTS", "*,acme", "expected tenant[,...], or * for all, found '*,acme'"),
    ("MILLSTREAM_SOURCES__FLIGHTS__TENANTS", "", "expected tenant[,...], or * for all, found ''"),
    ("MILLSTREAM_SECRETS", f'{{"acme": "{CANARY}"}}', 'expected JSON, {"tenant": {"name": "value"}}'),
    ("MILLSTREAM_SECRETS", f'{{"acme": {{"a b": "{CANARY}"}}}}', "names of letters, digits"),
    ("MILLSTREAM_SECRETS", '{"acme": {"a": "123"}}', "values of 4 to 4096 characters"),
    (
        "MILLSTREAM_SECRETS",
        f'{{"../acme": {{"a": "{CANARY}"}}}}',
        "a value of another form (secret, not shown)",
    ),
    ("MILLSTREAM_SECRETS", CANARY, "of another form (secret, not shown)"),
    ("MILLSTREAM_CRASH__POINT", "claim", "expected together with MILLSTREAM_CRASH__MARK"),
    ("MILLSTREAM_WORKER__LANE", "2", "did you mean MILLSTREAM_WORKER__LANES?"),
    ("MILLSTREAM_DATABASE_URL_FILE", "/x", "found both"),
]


@pytest.mark.parametrize(("key", "value", "says"), BAD)
def test_a_mistake_names_key_expected_and_found(key: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Everything, {**GOOD, key: value})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{key.removesuffix('_FILE')}: ")
    assert says in problem
    assert CANARY not in problem


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load(Everything, {"MILLSTREAM_API__PORT": "x", "MILLSTREAM_NONSENSE": "1"})
    keys = [problem.partition(":")[0] for problem in caught.value.problems]
    assert sorted(keys) == [
        "MILLSTREAM_API__PORT",
        "MILLSTREAM_DATABASE_URL",
        "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS",
        "MILLSTREAM_NONSENSE",
        "MILLSTREAM_SEALING__KEYS",
    ]


def test_keys_of_other_services_are_known() -> None:
    class Small(BaseModel):
        kafka: settings.Kafka

    assert load(Small, GOOD).kafka.bootstrap_servers == "a:9092,b:9092"


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text(GOOD["MILLSTREAM_DATABASE_URL"] + "\n", encoding="utf-8")
    environ = {key: value for key, value in GOOD.items() if key != "MILLSTREAM_DATABASE_URL"}
    loaded = load(Everything, {**environ, "MILLSTREAM_DATABASE_URL_FILE": str(path)})
    assert loaded.database.url.get_secret_value() == GOOD["MILLSTREAM_DATABASE_URL"]


def test_a_missing_secret_file_is_one_problem(tmp_path: Path) -> None:
    environ = {key: value for key, value in GOOD.items() if key != "MILLSTREAM_DATABASE_URL"}
    with pytest.raises(SettingsError) as caught:
        load(Everything, {**environ, "MILLSTREAM_DATABASE_URL_FILE": str(tmp_path / "none")})
    (problem,) = caught.value.problems
    assert "expected a readable file" in problem


def test_sqlalchemy_is_told_our_driver() -> None:
    assert settings.sqlalchemy_url("postgresql://a@b/c") == "postgresql+psycopg2://a@b/c"
    assert settings.sqlalchemy_url("postgres://a@b/c") == "postgresql+psycopg2://a@b/c"


SECURITY = "MILLSTREAM_KAFKA__SECURITY__"
SCRAM = {f"{SECURITY}PROTOCOL": "SASL_SSL", f"{SECURITY}USERNAME": "api", f"{SECURITY}PASSWORD": CANARY}
OAUTH = {
    f"{SECURITY}PROTOCOL": "SASL_SSL",
    f"{SECURITY}MECHANISM": "OAUTHBEARER",
    f"{SECURITY}OAUTH_TOKEN_URL": "https://login.example.com/token",
    f"{SECURITY}OAUTH_CLIENT_ID": "api",
    f"{SECURITY}OAUTH_CLIENT_SECRET": CANARY,
    f"{SECURITY}OAUTH_SCOPE": "kafka",
}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({f"{SECURITY}PROTOCOL": "SASL_PLAINTEXT"}, "PROTOCOL"),
        ({f"{SECURITY}PASSWORD": CANARY}, "PROTOCOL"),
        (SCRAM | {f"{SECURITY}PROTOCOL": "PLAINTEXT"}, "PROTOCOL"),
        ({name: value for name, value in SCRAM.items() if "PASSWORD" not in name}, "PASSWORD"),
        ({name: value for name, value in SCRAM.items() if "USERNAME" not in name}, "USERNAME"),
        ({name: value for name, value in OAUTH.items() if "SECRET" not in name}, "OAUTH_CLIENT_SECRET"),
        (SCRAM | {f"{SECURITY}CA": "/nowhere/ca.pem"}, "CA"),
        ({f"{SECURITY}PROTOCOL": "SSL", f"{SECURITY}CERTIFICATE": __file__}, "CERTIFICATE"),
    ],
)
def test_half_a_sign_in_to_kafka_is_refused(given: dict[str, str], key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(Everything, GOOD | given)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [f"{SECURITY}{key}"]
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("given", [SCRAM, OAUTH, SCRAM | {f"{SECURITY}CA": __file__}])
def test_a_sign_in_to_kafka_is_what_its_clients_take(given: dict[str, str]) -> None:
    loaded = load(Everything, GOOD | given)
    config = kafka.connection(loaded.kafka)
    assert config["security.protocol"] == "SASL_SSL"
    assert CANARY in config.values() and CANARY not in str(masked(loaded))
    without_files = {name: value for name, value in config.items() if name != "ssl.ca.location"}
    Producer(without_files)  # which refuses what it does not know


def test_a_plain_broker_is_told_nothing_of_security() -> None:
    assert kafka.connection(load(Everything, GOOD).kafka) == {"bootstrap.servers": "a:9092,b:9092"}
