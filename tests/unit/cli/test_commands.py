"""Every command: it explains itself, and the README names it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from services.cli.__main__ import app
from tests.commanding import Millstream

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


def commands(group: typer.Typer, *before: str) -> Iterator[tuple[str, ...]]:
    for command in group.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        yield (*before, name)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from commands(inner.typer_instance, *before, str(inner.name))


COMMANDS = sorted(commands(app))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_explains_itself(tmp_path: Path, words: tuple[str, ...]) -> None:
    ran = Millstream(tmp_path, {"COLUMNS": "200"})(*words, "--help")
    assert ran.code == 0 and f"Usage: millstream {' '.join(words)}" in ran.out
    assert re.search(r"[A-Z].+\.", ran.out.split("Options")[0].partition("\n")[2]), (
        "a docstring says what it does"
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_readme_names_it(words: tuple[str, ...]) -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `millstream")]
    assert any(f"`millstream {words[0]}" in row and f"{words[-1]}`" in row for row in rows) or any(
        f"`{words[0]}`" in row for row in rows if len(words) == 1
    )


def test_an_unknown_command_is_wrong_usage(tmp_path: Path) -> None:
    ran = Millstream(tmp_path)("nonsense")
    assert ran.code == 2 and "No such command" in ran.err
