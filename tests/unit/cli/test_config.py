"""`millstream config show`: every setting, where it comes from, and no secret."""

from pathlib import Path

import pytest

from services.runtime import settings
from tests.commanding import Millstream

SECRET = "s3cret"
ENVIRON = {
    "MILLSTREAM_DATABASE_URL": f"postgresql://a:{SECRET}@h/db",
    "MILLSTREAM_SOURCES__FLIGHTS": f"postgresql://a:{SECRET}@h/flights",
    "MILLSTREAM_SOURCES__FLIGHTS__TENANTS": "acme",
    "MILLSTREAM_HEALTH__PORT": "8081",
}


def test_every_setting_with_its_origin(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"k1:{'A' * 43}=")
    environ = {**ENVIRON, "MILLSTREAM_LINKS__KEYS_FILE": "keys"}
    ran = Millstream(tmp_path, environ)("config", "show", "--origin", "--json")
    assert ran.code == 0, ran.err
    found = {entry["key"]: (entry["value"], entry["origin"]) for entry in ran.json}
    assert found.keys() >= {key for section in settings.SECTIONS for key in settings.keys_of(section)}
    assert found["MILLSTREAM_DATABASE_URL"] == ("postgresql://a:***@h/db", "environment")
    assert found["MILLSTREAM_SOURCES__FLIGHTS__TENANTS"] == (["acme"], "environment")
    assert found["MILLSTREAM_SOURCES__FLIGHTS"] == ("postgresql://a:***@h/flights", "environment")
    assert found["MILLSTREAM_LINKS__KEYS"] == ("***", "file keys")
    assert found["MILLSTREAM_LINKS__TTL_S"] == (3600, "default")
    assert found["MILLSTREAM_BLOBS__URL"] == (None, "not set")
    # a section with something missing still shows what it has
    assert found["MILLSTREAM_HEALTH__PORT"] == (8081, "environment")
    assert found["MILLSTREAM_HEALTH__HOST"] == ("127.0.0.1", "default")
    assert SECRET not in ran.out


def test_only_what_is_set(tmp_path: Path) -> None:
    found = Millstream(tmp_path, ENVIRON)("config", "show", "--set", "--json").json
    assert {entry["key"] for entry in found} == set(ENVIRON)
    assert Millstream(tmp_path)("config", "show", "--set", "--json").json == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("MILLSTREAM_LINKS__TTL_S", "0", "expected seconds, 1 to 604800, found '0'"),
        ("MILLSTREAM_LINK__TTL_S", "1", "did you mean MILLSTREAM_LINKS__TTL_S?"),
        ("MILLSTREAM_SEALING__KEYS", SECRET, "secret, not shown"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, key: str, value: str, said: str) -> None:
    ran = Millstream(tmp_path, {key: value})("config", "show")
    assert ran.code == 1 and said in ran.err and ran.err.count("\n") == 1
    assert SECRET not in ran.out + ran.err
