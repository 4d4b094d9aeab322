"""Where commands go: which address wins, and that a key is shown to no other address than its own."""

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.cli import targets
from services.cli.failure import Exit, Failed
from services.cli.targets import Choice, Context
from tests.commanding import Millstream

KEY = "ms_0123456789ab_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
OF_ENVIRONMENT = {
    "MILLSTREAM_CLIENT__URL": "http://environment:1",
    "MILLSTREAM_CLIENT__KEY": KEY,
    "MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS": "environment:9092",
}


@pytest.fixture
def config(tmp_path: Path) -> Mapping[str, str]:
    """An environment with the contexts `first` (current, without Kafka) and `second`."""
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    known = {
        "first": Context("http://first:1", "k1"),
        "second": Context("http://second:1", None, "second:9092"),
    }
    targets.contexts(environ).write(known, "first")
    return environ


def test_the_current_context_is_used(config: Mapping[str, str]) -> None:
    target = targets.resolve(Choice(), config)
    assert (target.api(), target.origin) == (("http://first:1", "k1"), {"url": "context first"})
    with pytest.raises(Failed, match="Kafka: expected to know its address"):
        target.broker()


def test_the_environment_wins_over_the_current_context(config: Mapping[str, str]) -> None:
    target = targets.resolve(Choice(), {**config, **OF_ENVIRONMENT})
    assert target.api() == ("http://environment:1", KEY)
    assert target.broker().bootstrap_servers == "environment:9092"


def test_the_command_line_wins_over_the_environment(config: Mapping[str, str]) -> None:
    target = targets.resolve(Choice("second"), {**config, **OF_ENVIRONMENT})
    assert target.broker().bootstrap_servers == "second:9092"
    with pytest.raises(Failed, match="API key for http://second:1: expected one") as caught:
        target.api()
    assert caught.value.code is Exit.NOT_SIGNED_IN


def test_a_context_may_be_named_by_the_environment(config: Mapping[str, str]) -> None:
    assert (
        targets.resolve(Choice(), {**config, "MILLSTREAM_CLIENT__CONTEXT": "second"}).url == "http://second:1"
    )


def test_a_damaged_file_is_named(config: Mapping[str, str]) -> None:
    path = targets.contexts(config).path
    path.write_text("{")
    with pytest.raises(Failed, match="expected a contexts file"):
        targets.resolve(Choice(), config)


def test_contexts_are_made_listed_chosen_and_forgotten(tmp_path: Path) -> None:
    millstream = Millstream(tmp_path)
    assert millstream("context", "list", "--json").json == []
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert millstream("context", "set", "a", "--url", "http://a:1/", "--key-file", "key").code == 0
    assert millstream("context", "set", "b", "--kafka", "b:9092").code == 0
    listed = {entry["name"]: entry for entry in millstream("context", "list", "--json").json}
    assert listed["a"] == {
        "name": "a",
        "current": True,
        "url": "http://a:1",
        "kafka": None,
        "data": None,
        "has_key": True,
    }
    assert not listed["b"]["current"] and not listed["b"]["has_key"]
    assert millstream("context", "use", "b").code == 0
    assert millstream("context", "show", "--json").json["kafka"] == "b:9092"
    assert millstream("--context", "a", "context", "show", "--json").json["url"] == "http://a:1"
    assert millstream("context", "delete", "b").code == 0
    assert millstream("context", "use", "b").code == 1


def test_a_key_is_shown_to_nobody(tmp_path: Path) -> None:
    millstream = Millstream(tmp_path)
    (tmp_path / "key").write_text(KEY)
    ran = millstream("context", "set", "a", "--url", "http://a:1", "--key-file", "key")
    said = [
        ran,
        millstream("context", "list"),
        millstream("context", "list", "--json"),
        millstream("context", "show"),
    ]
    assert not any(KEY in ran.out + ran.err for ran in said)
    path = targets.contexts({"XDG_CONFIG_HOME": str(tmp_path / "config")}).path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_an_address_the_ways_to_one_are_named(tmp_path: Path) -> None:
    ran = Millstream(tmp_path)("job", "list")
    assert (ran.code, ran.out) == (1, "")
    assert "millstream dev" in ran.err and "millstream context set" in ran.err
    assert "MILLSTREAM_CLIENT__URL" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "nowhere", "job", "list"), "expected a running stack"),
        (("--context", "nobody", "job", "list"), "expected one of none"),
        (("context", "set", "a"), "expected --url, --kafka or --data"),
        (("context", "set", "a", "--key-file", "missing"), "expected a readable file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ran = Millstream(tmp_path)(*words)
    assert ran.code in (1, 2) and said in ran.err and not ran.out


def test_an_unknown_variable_of_ours_is_a_mistake(tmp_path: Path) -> None:
    ran = Millstream(tmp_path, {"MILLSTREAM_CLIENT__URI": "http://a:1"})("job", "list")
    assert ran.code == 2 and "did you mean MILLSTREAM_CLIENT__URL?" in ran.err
