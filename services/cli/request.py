"""`millstream request`: service requests, which are executions of pipelines, through the public REST API."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from services.cli import output, reading, request_views, rest, runs, targets
from services.cli.failure import Exit, Failed
from services.cli.output import AsJson, AsJsonLines
from services.cli.runs import ExitStatus, Limit, Reason, Runs
from services.runtime import entropy

REQUESTS = Runs("request", "request", "/v1/requests", request_views.request, frozenset({"Completed"}))

app = typer.Typer(no_args_is_help=True, help="Create, follow, decide and repeat service requests.")
Id = Annotated[str, typer.Argument(metavar="REQUEST", help="The request's id, 40 hex digits.")]
Step = Annotated[
    str | None, typer.Option(help="The step that waits for an approval; default: the one that does.")
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--value",
        help="NAME=VALUE; VALUE is JSON or else text: n=1 is a number, n='\"1\"' a text. Repeatable.",
    ),
]


@app.command()
def create(
    context: typer.Context,
    pipeline: Annotated[str | None, typer.Argument(help="The pipeline's id.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The request as JSON or YAML; - reads stdin.")
    ] = None,
    value: Values = None,
    revision: Annotated[int | None, typer.Option(min=1, help="Of the pipeline; default: the newest.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    tag: Annotated[str | None, typer.Option(help="A label to find it by.")] = None,
    priority: Annotated[str | None, typer.Option(help="low, normal or high.")] = None,
    at: Annotated[str | None, typer.Option(help="Not before this instant, 2026-01-05T09:00:00Z.")] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Create it only: `millstream request start` begins it.")
    ] = False,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same request is made once.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its end; exit code 1 unless it completes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for a pipeline with values for its form; prints the request's id."""
    api = rest.connect(context)
    body = reading.body(file)
    given: dict[str, Any] = {
        "pipeline": pipeline,
        "revision": revision,
        "name": name,
        "tag": tag,
        "priority": priority,
        "runAt": at,
        "start": False if hold else None,
    }
    body |= {field: found for field, found in given.items() if found is not None}
    if value:
        body["values"] = body.get("values", {}) | _values(value)
    if "pipeline" not in body:
        raise Failed("expected a PIPELINE or --file, found none", Exit.USAGE_OR_CANCELLED)
    headers = {"Idempotency-Key": key or entropy.fresh_id()}
    accepted = api.request("POST", REQUESTS.path, body=body, headers=headers).json()
    REQUESTS.created(api, accepted["id"], accepted, wait, as_json)


@app.command()
def get(context: typer.Context, id: Id, as_json: AsJson = False) -> None:
    """Show one request: status, what it waits for, steps, approvals."""
    REQUESTS.get(rest.connect(context), id, as_json)


@app.command("list")
def list_all(
    context: typer.Context,
    pipeline: Annotated[str | None, typer.Option(help="Only of this pipeline.")] = None,
    status: Annotated[str | None, typer.Option(help="Only in this status, for example Pending.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    requester: Annotated[str | None, typer.Option(help="Only of this principal.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
    as_lines: AsJsonLines = False,
) -> None:
    """List service requests, the newest first."""
    filters = {"pipeline": pipeline, "status": status, "tag": tag, "requester": requester}
    found = REQUESTS.newest(rest.connect(context), limit, filters)
    empty = f"no request fits; try: {targets.command('request create <pipeline>')}"
    output.listing(found, as_json, as_lines, request_views.requests, empty)


@app.command()
def approvals(context: typer.Context, as_json: AsJson = False) -> None:
    """List what waits for your approval."""
    found = rest.connect(context).pages("/v1/approvals", limit=runs.PAGE_MAX)
    output.listing(found, as_json, False, request_views.approvals, "nothing waits for you")


@app.command()
def watch(
    context: typer.Context,
    id: Id,
    exit_status: ExitStatus = False,
    as_json: AsJson = False,
    as_lines: AsJsonLines = False,
) -> None:
    """Follow a request from its first event to its last. --jsonl prints events, --json the result."""
    REQUESTS.watch(rest.connect(context), id, exit_status, as_json, as_lines)


@app.command()
def start(context: typer.Context, id: Id, as_json: AsJson = False) -> None:
    """Begin a request that was created with --hold."""
    REQUESTS.command(rest.connect(context), id, "start", {}, "started", as_json)


@app.command()
def cancel(context: typer.Context, id: Id, reason: Reason = None, as_json: AsJson = False) -> None:
    """End a request, whatever it does at the moment."""
    REQUESTS.command(rest.connect(context), id, "cancel", {"reason": reason}, "cancelled", as_json)


@app.command()
def pause(context: typer.Context, id: Id, reason: Reason = None, as_json: AsJson = False) -> None:
    """Begin nothing new; what runs comes to its end."""
    REQUESTS.command(rest.connect(context), id, "pause", {"reason": reason}, "paused", as_json)


@app.command()
def resume(context: typer.Context, id: Id, as_json: AsJson = False) -> None:
    """Go on with what was paused."""
    REQUESTS.command(rest.connect(context), id, "resume", {}, "resumed", as_json)


@app.command()
def amend(
    context: typer.Context,
    id: Id,
    value: Values = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The values as JSON or YAML.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give it other values, all of them, before it begins or while it waits for its first approval.

    What was agreed to is void; results of steps that have completed stay as they are.
    """
    body = {"values": reading.body(file) | _values(value or [])}
    REQUESTS.command(rest.connect(context), id, "amend", body, "amended", as_json)


@app.command()
def rerun(
    context: typer.Context,
    id: Id,
    from_failed: Annotated[
        bool, typer.Option("--from-failed", help="Take over the steps that have completed.")
    ] = False,
    latest: Annotated[
        bool, typer.Option("--latest", help="With the newest revision of the pipeline.")
    ] = False,
    reason: Reason = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the new one; exit code 1 unless it completes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run an ended request again, as a new one; prints the new id."""
    body = {"fromFailed": from_failed or None, "revision": "latest" if latest else None, "reason": reason}
    REQUESTS.rerun(rest.connect(context), id, body, wait, as_json)


@app.command()
def approve(
    context: typer.Context,
    id: Id,
    step: Step = None,
    remark: Annotated[str | None, typer.Option(help="Something to say with it.")] = None,
    form: Annotated[
        list[str] | None, typer.Option("--form", help="A value of the step's form, NAME=VALUE. Repeatable.")
    ] = None,
    content_hash: Annotated[
        str | None, typer.Option(help="Only if this is still its content, as `request get` shows it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Agree to what a request waits for."""
    filled = dict(reading.parameter(one, "--form") for one in form) if form else None
    body = {"remark": remark, "form": filled, "contentHash": content_hash}
    _decide(context, id, step, "approve", body, "approved", as_json)


@app.command()
def reject(
    context: typer.Context,
    id: Id,
    reason: Annotated[str, typer.Option(help="Why; kept in the log.")],
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Refuse what a request waits for: it fails."""
    _decide(context, id, step, "reject", {"reason": reason}, "rejected", as_json)


@app.command()
def remark(
    context: typer.Context,
    id: Id,
    text: Annotated[str, typer.Argument(help="What there is to say.")],
    step: Step = None,
    as_json: AsJson = False,
) -> None:
    """Say something about an approval without deciding it."""
    _decide(context, id, step, "remark", {"remark": text}, "remarked", as_json)


def _values(given: list[str]) -> dict[str, Any]:
    return dict(reading.parameter(one, "--value") for one in given)


def _decide(
    context: typer.Context, id: str, step: str | None, verb: str, body: Any, said: str, as_json: bool
) -> None:
    api = rest.connect(context)
    if step is None:
        waiting = api.get(REQUESTS.at(id))["waiting"] or {}
        step = (waiting.get("approval") or {}).get("step")
        if step is None:
            raise Failed(f"{id}: expected a step that waits for an approval, found none; --step names one")
    REQUESTS.command(api, id, f"steps/{quote(step, safe='')}/{verb}", body, f"{step} {said}", as_json)
