"""An execution as it happens: a line per event, and a moving line on a terminal only."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from services.cli import output
from services.cli.rest import Api
from services.contracts.events import TERMINAL

Event = Mapping[str, Any]
FREQUENT = frozenset({"step.progressed", "file.published"})
"""What the moving line says, where there is one."""


def follow(api: Api, execution_id: str, after: int = 0) -> Iterator[Event]:
    """Every event above `after`, as it happens, until the terminal one. Raises Failed."""
    last = str(after) if after else ""
    for message in api.stream(f"/v1/executions/{execution_id}/events", last):
        yield msgspec.json.decode(message.data)


def watch(events: Iterable[Event]) -> None:
    """Show events until they end; the moving line leaves nothing behind."""
    if not sys.stdout.isatty():
        for event in events:
            typer.echo(line(event))
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(highlight=False), transient=True) as progress:
        task = progress.add_task("waiting")
        for event in events:
            progress.update(task, description=escape(_doing(event)))
            if event["type"] not in FREQUENT:
                progress.console.print(line(event), markup=False, soft_wrap=True)


def silently(events: Iterable[Event]) -> None:
    """Wait until events end; on a terminal, stderr shows that something moves."""
    console = Console(stderr=True)
    with console.status("waiting") if console.is_terminal else nullcontext() as status:
        for event in events:
            if status is not None:
                status.update(escape(_doing(event)))


def line(event: Event) -> str:
    """One event as text: `sequence, time, type, what is worth knowing`."""
    at = str(event["occurred_at"])[11:19]
    return f"{event['sequence']:>5}  {at}  {event['type']:<22}  {detail(event)}".rstrip()


def detail(event: Event) -> str:  # noqa: PLR0911 one return an event
    """What is worth knowing of an event beside its type."""
    match event["type"]:
        case "execution.accepted":
            steps = ", ".join(f"{step['name']} ({step['kind']})" for step in event["plan"])
            return f"{event['request']['job_type']} by {event['request']['created_by']}: {steps}"
        case "execution.rejected":
            return "; ".join(f"{error['pointer']}: {error['message']}" for error in event["errors"])
        case "execution.completed":
            return f"{output.count(event['files'], 'file')}, {output.amount(event['rows'], event['bytes'])}"
        case "execution.rerun":
            return f"as {event['rerun_id']} by {event['requested_by']}"
        case "step.running":
            return f"{event['step']}: attempt {event['attempt']} on {event['worker']}"
        case "step.progressed":
            files = output.count(event["files"], "file")
            amount = output.amount(event["rows"], event["bytes"])
            return f"{event['step']}: {event['detail'] or ''} ({files}, {amount} so far)"
        case "file.published":
            file = event["file"]
            return f"{file['name']}: {output.amount(file['rows'], file['bytes'])}"
        case "approval.decided":
            quorum = f"{event['approvals']} of {event['quorum']}"
            by = event["decided_by"] or "nobody in time"
            return f"{event['step']}: {event['decision']} by {by} ({quorum}) {event['reason'] or ''}"
        case "approval.remarked":
            return f"{event['step']}: {event['remarked_by']}: {event['remark']}"
        case "hook.completed" | "hook.failed":
            return f"{event['step']}: {event['hook']} on {event['on']} {event.get('message') or ''}"
        case _:
            return _plain(event)


def _plain(event: Event) -> str:
    parts = [f"{event['step']}:"] if event.get("step") else []
    parts += [f"attempt {event['attempt']}"] if event.get("attempt") else []
    parts += [str(event[name]) for name in ("command", "reason", "message") if event.get(name)]
    parts += [f"by {event['requested_by']}"] if event.get("requested_by") else []
    parts += [f"again at {event['retry_at'][11:19]}"] if event.get("retry_at") else []
    parts += [f"until {output.instant(event['until'])}"] if event.get("until") else []
    return " ".join(parts)


def _doing(event: Event) -> str:
    return event["type"] if event["type"] in TERMINAL else f"{event['type']}  {detail(event)}"
