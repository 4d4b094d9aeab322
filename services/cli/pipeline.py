"""`millstream pipeline`: definitions of pipelines, through the public REST API; `check` needs none."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
import yaml

from services.cli import output, reading, rest, targets
from services.cli.failure import Failed
from services.cli.output import AsJson, AsJsonLines
from services.jobs import pipeline
from services.jobs.pipeline.shape import Step
from services.jobs.refused import Refused

PIPELINES = "/v1/pipelines"
PAGE = 200

app = typer.Typer(no_args_is_help=True, help="Store, show and check definitions of pipelines.")
Id = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's id.")]
File = Annotated[Path, typer.Argument(help="The definition as YAML or JSON; - reads stdin.")]
IfMatch = Annotated[str | None, typer.Option(help="Only over the revision with this etag.")]


def path_of(id: str) -> str:
    """Where a pipeline is."""
    return f"{PIPELINES}/{quote(id, safe='')}"


@app.command()
def put(
    context: typer.Context,
    id: Id,
    file: File,
    if_match: IfMatch = None,
    only_new: Annotated[bool, typer.Option("--new", help="Only if there is none of that id.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create or replace a pipeline; the same definition again makes no revision."""
    headers = {"Content-Type": "application/yaml"}  # of which JSON is a part
    headers |= {"If-Match": if_match} if if_match is not None else {}
    headers |= {"If-None-Match": "*"} if only_new else {}
    content = reading.text(file).encode()
    stored = rest.connect(context).request("PUT", path_of(id), content=content, headers=headers).json()
    if as_json:
        output.json_document(stored)
    else:
        typer.echo(f"{id} revision {stored['revision']}")


@app.command()
def get(
    context: typer.Context,
    id: Id,
    revision: Annotated[int | None, typer.Option(min=1, help="Not the current one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a pipeline: what runs."""
    found = rest.connect(context).get(path_of(id), revision=revision)
    if as_json:
        output.json_document(found)
        return
    output.note(f"{id} revision {found['revision']}, by {found['changed_by']}, etag {found['etag']}")
    typer.echo(yaml.safe_dump(found["definition"], sort_keys=False, allow_unicode=True).rstrip())


@app.command("list")
def list_all(context: typer.Context, as_json: AsJson = False, as_lines: AsJsonLines = False) -> None:
    """List the pipelines, in order of id."""
    found = rest.connect(context).pages(PIPELINES, limit=PAGE)
    empty = f"no pipelines yet; try: {targets.command('pipeline put <id> <file>')}"
    output.listing(found, as_json, as_lines, _pipelines, empty)


@app.command()
def revisions(context: typer.Context, id: Id, as_json: AsJson = False) -> None:
    """List the revisions of a pipeline, the newest first."""
    found = list(rest.connect(context).pages(f"{path_of(id)}/revisions", limit=PAGE))
    if as_json:
        output.json_document(found)
    else:
        rows = ((*_row(item)[1:], "deleted" if item["deleted"] else "stored") for item in found)
        output.table(("REVISION", "BY", "CHANGED", "STATE"), rows)


@app.command()
def delete(context: typer.Context, id: Id, if_match: IfMatch = None) -> None:
    """Remove a pipeline; requests that have begun go on."""
    headers = {} if if_match is None else {"If-Match": if_match}
    rest.connect(context).request("DELETE", path_of(id), headers=headers)
    typer.echo(f"{id} deleted")


@app.command()
def check(file: File, as_json: AsJson = False) -> None:
    """Name everything that is wrong with a definition, else show its order; asks no api.

    Exit code 1 when something is wrong.
    """
    body = reading.document(file)
    try:
        found = pipeline.parse(body)
    except Refused as refused:
        if as_json:
            output.json_document([{"pointer": e.pointer, "message": e.message} for e in refused.errors])
            raise typer.Exit(1) from None
        lines = [f"  {error.pointer}: {error.message}" for error in refused.errors]
        raise Failed("\n".join([f"{file}: {output.count(len(lines), 'fault')}", *lines])) from None
    if as_json:
        output.json_document([])
        return
    typer.echo(f"{file}: {output.count(len(found.steps), 'step')}, first {found.steps[0].name}")
    fields = (f"{field.name} ({field.type})" for field in found.form)
    output.fields(
        (("values", ", ".join(fields) or "none"), ("datasets", ", ".join(sorted(found.datasets)) or None))
    )
    output.table(("STEP", "KIND", "NEXT", "ELSE"), map(_ways, found.steps))


def _ways(step: Step) -> tuple[str, ...]:
    """A step with what follows it, and where else it may go."""
    gotos = [action for action in step.flow.actions if action.kind == "goto"]
    ways = (f"{action.step} on {action.on}{f' if {action.when}' if action.when else ''}" for action in gotos)
    end = "-" if any(action.on != "error" and action.when is None for action in gotos) else "end"
    return step.name, step.kind, ", ".join(step.flow.next) or end, "; ".join(ways)


def _pipelines(found: list[Any]) -> None:
    output.table(("PIPELINE", "REVISION", "BY", "CHANGED"), map(_row, found))


def _row(item: Any) -> tuple[Any, ...]:
    return item["id"], item["revision"], item["changed_by"], output.instant(item["changed_at"])
