"""`millstream config`: the settings that a process started here would have, and where each comes from.

Beside a running `millstream dev` they are those of its processes: of the stack that `--data` names, or if no
setting is given here of the one in `.millstream`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import psutil
import typer
from pydantic import BaseModel, create_model

from services.cli import output
from services.cli.dev.folder import DEFAULT_DATA, Folder
from services.cli.dev.parts import PARTS
from services.cli.failure import Exit
from services.cli.output import AsJson
from services.cli.targets import Choice
from services.runtime import settings
from services.runtime.settings import PREFIX, Section, SettingsError

DEFAULT, MISSING, HERE = "default", "not set", "environment"


class Nothing(BaseModel):
    """No setting at all: what is wrong with it is wrong with the environment as a whole."""


app = typer.Typer(no_args_is_help=True, help="Show settings.")


@app.callback()
def group() -> None:
    """Show settings."""


@dataclass(frozen=True)
class Setting:
    """One setting: its value with secrets masked, None where it is missing or cannot be read."""

    key: str
    value: object
    origin: str

    @property
    def is_set(self) -> bool:
        """Whether somebody set it."""
        return self.origin not in (DEFAULT, MISSING)


@app.command()
def show(
    context: typer.Context,
    with_origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    only_set: Annotated[bool, typer.Option("--set", help="Only what is set here, no defaults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show every setting, secrets masked; exit code 1 when one of them cannot be used.

    Those of the running `millstream dev`, if there is one; where its processes differ, the api's.
    """
    environ, whose = _environment(context.obj)
    found: list[Setting] = []
    problems = _load(Nothing, environ)[1]
    for section in settings.SECTIONS:
        values, wrong = _values(section, environ)
        problems += wrong
        found += [one for one in _settings(section, values, environ, whose) if not only_set or one.is_set]
    if whose != HERE:
        output.note(f"settings of {whose}")
    if as_json:
        names = ("key", "value", "origin") if with_origin else ("key", "value")
        output.json_document([{name: getattr(one, name) for name in names} for one in found])
    else:
        rows = [(one.key, one.value, one.origin) if with_origin else (one.key, one.value) for one in found]
        output.table(("KEY", "VALUE", "FROM")[: 2 + with_origin], rows)
    for line in problems:
        output.note(line)
    if problems:
        raise typer.Exit(Exit.FAILED)


def _environment(choice: Choice) -> tuple[Mapping[str, str], str]:
    """The variables to look at, and whose they are."""
    folder = Folder(choice.data or DEFAULT_DATA)
    own = {key for key in os.environ if key.startswith(PREFIX)}
    if (own and choice.data is None) or not folder.is_owned():
        return os.environ, HERE
    found = of_stack(folder)
    return (found, f"the running millstream dev in {folder.root}") if found else (os.environ, HERE)


def of_stack(folder: Folder) -> Mapping[str, str]:
    """The variables of the processes of a `millstream dev`, where they differ the api's; none without one."""
    pids = folder.state().get("pids", {})
    found: dict[str, str] = {}
    for part in reversed(PARTS):  # the first one has the last word
        with suppress(psutil.Error):
            if pid := pids.get(part.name):
                found |= psutil.Process(pid).environ()
    return found


def _values(section: type[Section], environ: Mapping[str, str]) -> tuple[Mapping[str, object], list[str]]:
    """The masked values of a section by field, and what is wrong with it; to be missing is not wrong."""
    fixed = settings.keys_of(section)
    own = {
        key: value
        for key, value in environ.items()
        if key.removesuffix("_FILE") in fixed or (not fixed and key.startswith(f"{PREFIX}{section.prefix}"))
    }
    values, problems = _load(create_model("One", one=(section, ...)), own)
    if values is not None:
        masked = values["one"]
        assert isinstance(masked, dict)
        return masked, []
    fallback: dict[str, object] = {}
    for key, field in settings.keys_of(section).items():
        if settings.is_secret(section, field):
            fallback[field] = "***"
        elif key in environ:
            fallback[field] = environ[key]
        elif not section.model_fields[field].is_required():
            fallback[field] = section.model_fields[field].default
    return fallback, [line for line in problems if not line.partition(", found ")[2].startswith("nothing;")]


def _load(model: type[BaseModel], environ: Mapping[str, str]) -> tuple[dict[str, object] | None, list[str]]:
    try:
        return settings.masked(settings.load(model, environ)), []
    except SettingsError as error:
        return None, list(error.problems)


def _settings(
    section: type[Section], values: Mapping[str, object], environ: Mapping[str, str], whose: str
) -> Iterator[Setting]:
    if section in settings.OPEN:
        (named,) = values.values() if values else ({},)
        assert isinstance(named, Mapping)
        keys = {settings.open_key(section, name): value for name, value in named.items()}
    else:
        keys = {key: values.get(field) for key, field in settings.keys_of(section).items()}
    for key, value in keys.items():
        is_given = key in environ or f"{key}_FILE" in environ
        shown = value if is_given or value not in ([], (), "***") else None
        yield Setting(key, shown, _origin(key, shown, environ, whose))


def _origin(key: str, value: object, environ: Mapping[str, str], whose: str) -> str:
    if key in environ:
        return whose
    if f"{key}_FILE" in environ:
        return f"file {environ[f'{key}_FILE']}"
    return MISSING if value is None else DEFAULT
