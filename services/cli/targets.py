"""Which Millstream a command talks to: the addresses, the API key, and where each of them was found.

Looked at in this order: `--context` or `--data` of the command line; the environment
(`MILLSTREAM_CLIENT__URL`, `MILLSTREAM_CLIENT__KEY`, `MILLSTREAM_KAFKA__BOOTSTRAP_SERVERS`); the context that
`MILLSTREAM_CLIENT__CONTEXT` names or `millstream context use` chose; the stack of `millstream dev` in
`.millstream`.
"""

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, ConfigDict

from services.cli.dev.folder import DEFAULT_DATA, Folder, write_private
from services.cli.failure import Exit, Failed
from services.runtime import blobs, settings
from services.runtime.blobs import Blobs
from services.runtime.settings import PREFIX, Client, Kafka, SettingsError, kafka_at, load

URL_KEY = f"{PREFIX}CLIENT__URL"
API_KEY_KEY = f"{PREFIX}CLIENT__KEY"
BLOBS_KEY = f"{PREFIX}BLOBS__URL"
BOOTSTRAP_KEY = f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS"
START = "start a stack here (`millstream dev`), choose a context (`millstream context set`)"
WAYS = f"{START}, or set {URL_KEY} and {API_KEY_KEY}"
KAFKA_WAYS = f"{START}, or set {BOOTSTRAP_KEY}"


class Settings(BaseModel):
    """What commands take from the environment."""

    model_config = ConfigDict(frozen=True)
    client: Client


class Store(BaseModel):
    """Where claims of dead letters lie."""

    model_config = ConfigDict(frozen=True)
    blobs: settings.Blobs


@dataclass(frozen=True)
class Choice:
    """What the command line says before the command."""

    context: str | None = None
    data: Path | None = None


CHOICE: ContextVar[Choice | None] = ContextVar("choice", default=None)
"""That of the running command."""


@dataclass(frozen=True)
class Context:
    """One entry of the contexts file: addresses and key, or the data folder of a local stack."""

    url: str | None = None
    key: str | None = None
    kafka: str | None = None
    data: str | None = None


@dataclass(frozen=True)
class Target:
    """The addresses, None where they are not known; `origin` says where each was found."""

    url: str | None
    key: str | None
    kafka: str | None
    origin: Mapping[str, str]
    data: str | None = None
    """The data folder of the local stack whose broker that is."""

    def api(self) -> tuple[str, str]:
        """URL and key of the API. Raises Failed."""
        if self.url is None:
            raise Failed(f"API: expected to know its address, found none; {WAYS}")
        if self.key is None:
            mend = f"set {API_KEY_KEY}, or `millstream context set NAME --url ... --key-file ...`"
            raise Failed(f"API key for {self.url}: expected one, found none; {mend}", Exit.NOT_SIGNED_IN)
        return self.url, self.key

    def broker(self) -> Kafka:
        """The broker. Raises Failed."""
        if self.kafka is None:
            raise Failed(f"Kafka: expected to know its address, found none; {KAFKA_WAYS}")
        try:
            return kafka_at(self.kafka, os.environ)
        except SettingsError as error:
            raise Failed(str(error), Exit.USAGE_OR_CANCELLED) from None

    def blobs(self) -> Blobs:
        """The local stack's blob store, or that of MILLSTREAM_BLOBS__URL. Raises Failed."""
        ours = {} if self.data is None else {BLOBS_KEY: (Path(self.data).resolve() / "blobs").as_uri()}
        try:
            return blobs.connect(load(Store, {**os.environ, **ours}).blobs.url)
        except SettingsError as error:
            raise Failed(str(error), Exit.USAGE_OR_CANCELLED) from None


class Contexts:
    """The contexts file: names, and which of them is current. Only its owner can read it: it holds keys."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[dict[str, Context], str | None]:
        """(contexts by name, the current one's name). Raises Failed when the file is damaged."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            known = {name: Context(**entry) for name, entry in content["contexts"].items()}
            return known, content["current"]
        except FileNotFoundError:
            return {}, None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise Failed(
                f"{self.path}: expected a contexts file, found {error!r}; repair or delete it"
            ) from None

    def write(self, known: Mapping[str, Context], current: str | None) -> None:
        """Replace the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entries = {name: {k: v for k, v in vars(entry).items() if v} for name, entry in known.items()}
        write_private(self.path, json.dumps({"current": current, "contexts": entries}, indent=2) + "\n")

    def named(self, name: str) -> Context:
        """One context. Raises Failed."""
        known, _ = self.read()
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise Failed(
                f"context {name}: expected one of {listed}; `millstream context set {name}` makes it"
            )
        return known[name]


def contexts(environ: Mapping[str, str]) -> Contexts:
    """The user's file."""
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Contexts(home / "millstream" / "contexts.json")


def resolve(choice: Choice, environ: Mapping[str, str]) -> Target:
    """Where to go, see the module. Raises Failed."""
    found = list(_candidates(choice, environ))
    api = next(((entry, origin) for entry, origin in found if entry.url), None)
    kafka = next(((entry, origin) for entry, origin in found if entry.kafka), None)
    origin = ({"url": api[1]} if api else {}) | ({"kafka": kafka[1]} if kafka else {})
    # a key goes with its own address: that of one stack is never shown to another
    url, key = (api[0].url, api[0].key) if api else (None, None)
    return Target(url, key, kafka[0].kafka if kafka else None, origin, kafka[0].data if kafka else None)


def _candidates(choice: Choice, environ: Mapping[str, str]) -> Iterator[tuple[Context, str]]:
    if choice.context is not None:
        yield _opened(contexts(environ).named(choice.context)), f"context {choice.context}"
    if choice.data is not None:
        yield _opened(Context(data=str(choice.data))), f"--data {choice.data}"
    if choice != Choice():
        return  # whoever names one stack never reaches another by a leftover variable
    client = _client(environ)
    yield (
        Context(client.url, client.key.get_secret_value() or None, environ.get(BOOTSTRAP_KEY)),
        "environment",
    )
    current = client.context or contexts(environ).read()[1]
    if current is not None:
        yield _opened(contexts(environ).named(current)), f"context {current}"
    elif (state := _running(DEFAULT_DATA)) is not None:
        yield state, str(DEFAULT_DATA)


def chosen(context: typer.Context) -> Target:
    """The target of the running command. Raises Failed."""
    choice = context.find_root().obj
    return resolve(choice if isinstance(choice, Choice) else Choice(), os.environ)


def command(words: str) -> str:
    """A command as the person may type it next: it talks to the same stack as the running one."""
    choice = CHOICE.get() or Choice()
    chosen = "" if choice.data is None else f"--data {shlex.quote(str(choice.data))} "
    named = "" if choice.context is None else f"--context {shlex.quote(choice.context)} "
    return f"millstream {named}{chosen}{words}"


def _client(environ: Mapping[str, str]) -> Client:
    try:
        return load(Settings, environ).client
    except SettingsError as error:
        raise Failed(str(error), Exit.USAGE_OR_CANCELLED) from None


def _opened(context: Context) -> Context:
    """The context with what its data folder tells."""
    if context.data is None:
        return context
    running = _running(Path(context.data))
    if running is None:
        folder = Path(context.data).resolve()
        start = f"millstream dev --data {context.data}"
        raise Failed(f"{folder}: expected a running stack, found none; start it: {start}")
    given = {name: value for name, value in vars(context).items() if value}
    return replace(running, **given)


def _running(data: Path) -> Context | None:
    """What the running stack of this data folder tells of itself."""
    folder = Folder(data)
    state: Mapping[str, Any] = folder.state()
    if not folder.is_owned() or state.get("status") != "ready":
        return None
    key = Path(state["api_key_file"]).read_text(encoding="utf-8").strip()
    return Context(state["api_url"], key, state["kafka_bootstrap"], str(folder.root))
