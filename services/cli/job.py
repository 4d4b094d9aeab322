"""`millstream job`: submit, look, follow, end and repeat executions, all through the public REST API."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from services.cli import output, reading, rest, sample, targets, views
from services.cli.failure import Exit, Failed
from services.cli.output import AsJson, AsJsonLines
from services.cli.runs import ExitStatus, Limit, Reason, Runs
from services.runtime import entropy

COMPLETED = frozenset({"completed", "completed_with_warnings"})
EXECUTIONS = Runs("execution", "job", "/v1/executions", views.execution, COMPLETED)

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
    accepted = api.request("POST", EXECUTIONS.path, body=body, headers=headers).json()
    EXECUTIONS.created(api, accepted["execution_id"], accepted, wait, as_json)


@app.command()
def get(context: typer.Context, id: Id, as_json: AsJson = False) -> None:
    """Show one execution: status, steps, files."""
    EXECUTIONS.get(rest.connect(context), id, as_json)


@app.command("list")
def list_all(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only in this status, for example failed.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only of this job type.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    requester: Annotated[str | None, typer.Option(help="Only of this principal.")] = None,
    since: Annotated[str | None, typer.Option(help="Submitted at or after, 2026-01-05T09:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Submitted before.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
    as_lines: AsJsonLines = False,
) -> None:
    """List executions, the newest first."""
    filters = {
        "status": status,
        "job_type": type_,
        "tag": tag,
        "requester": requester,
        "submitted_after": since,
        "submitted_before": until,
    }
    found = EXECUTIONS.newest(rest.connect(context), limit, filters)
    none = "no execution fits these filters"
    sample_ = targets.command("job submit --sample --wait")
    empty = none if any(filters.values()) else f"no executions yet; try: {sample_}"
    output.listing(found, as_json, as_lines, views.executions, empty)


@app.command()
def watch(
    context: typer.Context,
    id: Id,
    exit_status: ExitStatus = False,
    as_json: AsJson = False,
    as_lines: AsJsonLines = False,
) -> None:
    """Follow an execution from its first event to its last. --jsonl prints events, --json the result."""
    EXECUTIONS.watch(rest.connect(context), id, exit_status, as_json, as_lines)


@app.command()
def cancel(
    context: typer.Context,
    id: Id,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """End an execution, whatever it does at the moment."""
    EXECUTIONS.command(rest.connect(context), id, "cancel", {"reason": reason}, "cancelled", as_json)


@app.command()
def rerun(
    context: typer.Context,
    id: Id,
    reason: Reason = None,
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
    EXECUTIONS.rerun(rest.connect(context), id, body, wait, as_json)


@app.command()
def logs(
    context: typer.Context,
    id: Id,
    step: Annotated[str | None, typer.Option(help="Only of this step.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution ends.")] = False,
) -> None:
    """Show what the steps of an execution logged."""
    api = rest.connect(context)
    names = [entry["name"] for entry in api.get(EXECUTIONS.at(id))["steps"]]
    if step is not None and step not in names:
        raise Failed(f"--step: expected one of {', '.join(names) or 'none yet'}, found {step}")
    written = False
    for name in names if step is None else [step]:
        if len(names) > 1 and step is None:
            output.note(f"--- {name}")
        path = EXECUTIONS.at(id, "steps", name, "log")
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
    files = api.get(EXECUTIONS.at(id))["files"]
    if not files:
        get_ = targets.command(f"job get {id}")
        raise Failed(f"{id}: expected published files, found none (yet); `{get_}` tells why")
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
