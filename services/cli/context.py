"""`millstream context`: which Millstream the commands talk to."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from services.cli import output, targets
from services.cli.failure import Exit, Failed
from services.cli.output import AsJson
from services.cli.targets import Context

app = typer.Typer(no_args_is_help=True, help="Choose which Millstream the commands talk to.")
Name = Annotated[str, typer.Argument(help="A name of your choice.")]


def _public(name: str, context: Context, current: str | None) -> dict[str, object]:
    """A context without its key."""
    shown = {"url": context.url, "kafka": context.kafka, "data": context.data}
    return {"name": name, "current": name == current, **shown, "has_key": context.key is not None}


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the contexts; the current one has a star."""
    known, current = targets.contexts(os.environ).read()
    found = [_public(name, context, current) for name, context in sorted(known.items())]
    if as_json:
        output.json_document(found)
        return
    if not found:
        output.note("no contexts yet: without one, commands talk to `millstream dev` in .millstream")
        return
    columns = ("url", "kafka", "data")
    rows = [
        ("*" if entry["current"] else " ", entry["name"], *(entry[c] for c in columns)) for entry in found
    ]
    output.table(("", "NAME", "API", "KAFKA", "DATA FOLDER"), rows)


@app.command("set")
def set_(
    name: Name,
    url: Annotated[str | None, typer.Option(help="The API's address, http(s)://host[:port].")] = None,
    key_file: Annotated[Path | None, typer.Option(help="A file with the API key; - reads stdin.")] = None,
    kafka: Annotated[str | None, typer.Option(help="The broker, host:port[,...].")] = None,
    data: Annotated[Path | None, typer.Option(help="The data folder of a `millstream dev`.")] = None,
) -> None:
    """Make or change a context. The key is kept in a file that only you can read."""
    contexts = targets.contexts(os.environ)
    known, current = contexts.read()
    given: dict[str, str] = {}
    if url is not None:
        given["url"] = url.rstrip("/")
    if key_file is not None:
        given["key"] = _key(key_file)
    if kafka is not None:
        given["kafka"] = kafka
    if data is not None:
        given["data"] = str(data.resolve())
    if not given and name not in known:
        raise Failed("expected --url, --kafka or --data, found none", Exit.USAGE_OR_CANCELLED)
    known[name] = replace(known.get(name, Context()), **given)
    contexts.write(known, current or name)
    output.note(f"context {name} written to {contexts.path}" + ("" if current else ", and made current"))


def _key(path: Path) -> str:
    try:
        return (sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")).strip()
    except OSError as error:
        raise Failed(f"--key-file: expected a readable file, found {error}") from None


@app.command()
def use(name: Name) -> None:
    """Make a context the current one."""
    contexts = targets.contexts(os.environ)
    contexts.named(name)
    contexts.write(contexts.read()[0], name)
    output.note(f"current context: {name}")


@app.command()
def delete(name: Name) -> None:
    """Forget a context."""
    contexts = targets.contexts(os.environ)
    contexts.named(name)
    known, current = contexts.read()
    contexts.write({n: c for n, c in known.items() if n != name}, None if current == name else current)
    output.note(f"context {name} forgotten")


@app.command()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show where commands would go now, and why."""
    target = targets.chosen(context)
    if as_json:
        output.json_document({"url": target.url, "kafka": target.kafka, "origin": target.origin})
        return
    rows = (
        ("API", target.url, target.origin.get("url")),
        ("Kafka", target.kafka, target.origin.get("kafka")),
    )
    output.table(("", "ADDRESS", "FROM"), rows)
