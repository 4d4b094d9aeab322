"""Fetching the jars: whole or not at all, and what is missing is named with what mends it."""

from pathlib import Path

import pytest

from services.cli.dev import jars
from services.cli.dev.folder import DevError, MissingTool

FETCH = """#!/bin/sh
for word; do case "$word" in -DoutputDirectory=*) target="${word#*=}";; esac; done
/bin/mkdir -p "$target"
echo half > "$target/kafka.jar"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own PATH, and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def _program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def test_an_interrupted_fetch_leaves_nothing_that_looks_whole(programs: Path) -> None:
    _program(programs / "mvn", FETCH + "echo 'the line dropped' >&2; exit 1\n")
    with pytest.raises(DevError, match="the line dropped"):
        jars.ensure()
    assert not jars.cache_folder().exists()
    assert list(jars.cache_folder().parent.iterdir()) == []
    _program(programs / "mvn", FETCH)
    assert [path.name for path in jars.ensure().iterdir()] == ["kafka.jar"]


def test_a_fetched_folder_is_used_without_maven(programs: Path) -> None:
    jars.cache_folder().mkdir(parents=True)
    assert jars.ensure() == jars.cache_folder()
    assert not (programs / "mvn").exists()


def test_missing_maven_is_named(programs: Path) -> None:
    with pytest.raises(MissingTool, match="expected Maven on the PATH, found none"):
        jars.ensure()
    assert not (programs / "mvn").exists()


def test_missing_and_old_java_are_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(MissingTool, match="expected version 17 or newer on the PATH, found none"):
        jars.java_version()
    _program(programs / "java", "#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    with pytest.raises(MissingTool, match="found version 11"):
        jars.java_version()
    _program(programs / "java", "#!/bin/sh\necho 'openjdk version \"21\" 2023-09-19' >&2\n")
    assert jars.java_version() == 21
