"""`millstream job`: submit, look, follow, end and repeat executions, all through the public REST API."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import commanding, output, reading, rest, sample, views, watching
from services.cli.failure import Exit, Failed
from services.cli.output import AsJson, AsJsonLines
from services.cli.rest import Api
from services.runtime import entropy

EXECUTIONS = "/v1/executions"
LIMIT_MAX = 200

app = typer.Typer(no_args_is_help=True, help="Submit, follow, end and repeat executions.")
Id = Annotated[str, typer.Argument(metavar="EXECUTION", help="The execution's id, 40 hex digits.")]
Key = Annotated[
    str | None,
    typer.Option(help="Idempotency key: the same key and request is done once, however often sent."),
]


@app.command()
def submit(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="The request as JSON or YAML; - reads stdin.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="The job type, for example export.")] = None,
    dataset: Annotated[str | None, typer.Option(help="What to export; see GET /v1/datasets.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(help="A parameter, NAME=VALUE; VALUE is JSON or else text. Repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    tag: Annotated[str | None, typer.Option(help="A label to find it by.")] = None,
    at: Annotated[str | None, typer.Option(help="Not before this instant, 2026-01-05T09:00:00Z.")] = None,
    on_duplicate: Annotated[
        str | None, typer.Option(help="What a known key does: return_existing, reject or rerun_if_failed.")
    ] = None,
    key: Key = None,
    use_sample: Annotated[
        bool, typer.Option("--sample", help="Export the sample table that `millstream dev` provides.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its end; exit code 1 if it fails.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Submit an execution; prints its id (with --wait, what became of it)."""
    api = rest.connect(context)
    body = reading.body(file)
    if use_sample:
        sample.ensure_dataset(api)
        body = {**sample.REQUEST, **body}
    given = {
        "jobType": type_,
        "dataset": dataset,
        "name": name,
        "tag": tag,
        "runAt": at,
        "onDuplicate": on_duplicate,
    }
    body |= {field: value for field, value in given.items() if value is not None}
    if dataset is not None:
        body.setdefault("jobType", "export")
    if param:
        body["params"] = body.get("params", {}) | dict(reading.parameter(one, "--param") for one in param)
    if "jobType" not in body:
        raise Failed("expected a FILE, --type, --dataset or --sample, found none", Exit.USAGE_OR_CANCELLED)
    # with a key of our own, what sends the request again after a broken connection asks for nothing twice
    headers = {"Idempotency-Key": key or entropy.fresh_id()}
    accepted = api.request("POST", EXECUTIONS, body=body, headers=headers).json()
    _started(api, accepted, wait, as_json)


def _started(api: Api, accepted: Mapping[str, Any], wait: bool, as_json: bool) -> None:
    """What follows an accepted request."""
    id = accepted["execution_id"]
    if not wait:
        if as_json:
            output.json_document(accepted)
        else:
            typer.echo(id)
            output.note(f"accepted; follow it: millstream job watch {id}")
        return
    if as_json:
        watching.silently(watching.follow(api, id))
    else:
        output.note(f"execution {id}")
        watching.watch(watching.follow(api, id))
    _finish(api, id, as_json)


def _finish(api: Api, id: str, as_json: bool) -> None:
    """What became of an execution; exit code 1 unless it completed."""
    found = api.get(f"{EXECUTIONS}/{id}")
    if as_json:
        output.json_document(found)
    else:
        typer.echo("")
        views.execution(found)
    if found["status"] not in watching.COMPLETED:
        raise typer.Exit(Exit.FAILED)


@app.command()
def get(context: typer.Context, id: Id, as_json: AsJson = False) -> None:
    """Show one execution: status, steps, files."""
    found = rest.connect(context).get(f"{EXECUTIONS}/{id}")
    if as_json:
        output.json_document(found)
    else:
        views.execution(found)


@app.command("list")
def list_all(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only in this status, for example failed.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only of this job type.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    requester: Annotated[str | None, typer.Option(help="Only of this principal.")] = None,
    since: Annotated[str | None, typer.Option(help="Submitted at or after, 2026-01-05T09:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Submitted before.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
    as_lines: AsJsonLines = False,
) -> None:
    """List executions, the newest first."""
    api = rest.connect(context)
    filters = {
        "status": status,
        "job_type": type_,
        "tag": tag,
        "requester": requester,
        "submitted_after": since,
        "submitted_before": until,
    }
    items = _first(api.pages(EXECUTIONS, limit=min(limit, LIMIT_MAX), **filters), limit)
    if as_lines:
        for item in items:
            output.json_line(item)
        return
    found = list(items)
    if as_json:
        output.json_document(found)
    elif found:
        views.executions(found)
    elif any(filters.values()):
        output.note("no execution fits these filters")
    else:
        output.note("no executions yet; try: millstream job submit --sample --wait")


def _first(items: Iterator[Any], count: int) -> Iterator[Any]:
    for _, item in zip(range(count), items, strict=False):
        yield item


@app.command()
def watch(
    context: typer.Context,
    id: Id,
    exit_status: Annotated[
        bool, typer.Option("--exit-status", help="Exit code 1 unless it completes.")
    ] = False,
    as_json: AsJson = False,
    as_lines: AsJsonLines = False,
) -> None:
    """Follow an execution from its first event to its last. --jsonl prints events, --json the result."""
    api = rest.connect(context)
    events = watching.follow(api, id)
    if as_lines:
        for event in events:
            output.json_line(event)
    elif as_json:
        watching.silently(events)
        output.json_document(api.get(f"{EXECUTIONS}/{id}"))
    else:
        watching.watch(events)
    if exit_status and api.get(f"{EXECUTIONS}/{id}")["status"] not in watching.COMPLETED:
        raise typer.Exit(Exit.FAILED)


@app.command()
def cancel(
    context: typer.Context,
    id: Id,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the log.")] = None,
    as_json: AsJson = False,
) -> None:
    """End an execution, whatever it does at the moment."""
    done = _command(context, id, "cancel", {"reason": reason})
    if as_json:
        output.json_document(done)
    elif done["answer"] is not None:
        typer.echo(f"{id} cancelled")


@app.command()
def rerun(
    context: typer.Context,
    id: Id,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the log.")] = None,
    reuse_results: Annotated[
        bool, typer.Option("--reuse-results", help="Take over the steps that have completed.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the new one; exit code 1 if it fails.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run an ended execution again, as a new one; prints the new id."""
    body = {"reason": reason, "reuseResults": reuse_results or None}
    done = _command(context, id, "rerun", body, until_answered=wait)
    if wait or (done["answer"] is not None and not as_json):
        _started(rest.connect(context), {"execution_id": done["rerun_id"]}, wait, as_json)
    elif as_json:
        output.json_document(done)
    else:
        typer.echo(done["rerun_id"])


def _command(
    context: typer.Context, id: str, kind: str, body: Mapping[str, Any], *, until_answered: bool = False
) -> dict[str, Any]:
    watch = f"millstream job watch {id}"
    path = f"{EXECUTIONS}/{id}/{kind}"
    return commanding.give(rest.connect(context), path, body, watch, until_answered=until_answered)


@app.command()
def logs(
    context: typer.Context,
    id: Id,
    step: Annotated[str | None, typer.Option(help="Only of this step.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution ends.")] = False,
) -> None:
    """Show what the steps of an execution logged."""
    api = rest.connect(context)
    names = [entry["name"] for entry in api.get(f"{EXECUTIONS}/{id}")["steps"]]
    if step is not None and step not in names:
        raise Failed(f"--step: expected one of {', '.join(names) or 'none yet'}, found {step}")
    written = False
    for name in names if step is None else [step]:
        if len(names) > 1 and step is None:
            output.note(f"--- {name}")
        path = f"{EXECUTIONS}/{id}/steps/{name}/log"
        pieces = (message.data for message in api.stream(path)) if follow else [api.request("GET", path).text]
        for piece in pieces:
            if piece:
                written = True
                typer.echo(piece.removesuffix("\n"))
    if not written:
        output.note("nothing logged" if names else "no steps yet")


@app.command()
def download(
    context: typer.Context,
    id: Id,
    to: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
) -> None:
    """Download every file of an execution and compare each with its SHA-256."""
    api = rest.connect(context)
    files = api.get(f"{EXECUTIONS}/{id}")["files"]
    if not files:
        raise Failed(f"{id}: expected published files, found none (yet); `millstream job get {id}` tells why")
    to.mkdir(parents=True, exist_ok=True)
    for file in files:
        place = to / Path(file["name"]).name
        digest = hashlib.sha256()
        partial = place.with_name(f".{place.name}.part")
        with partial.open("wb") as target:
            for chunk in api.download(file["url"]):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != file["sha256"]:
            partial.unlink()
            found = digest.hexdigest()
            raise Failed(
                f"{file['name']}: expected SHA-256 {file['sha256']}, found {found}; download it again"
            )
        partial.rename(place)
        typer.echo(f"{place}  {output.amount(file['rows'], file['bytes'])}")
