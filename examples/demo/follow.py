"""An execution's events as they come, and how far it is."""

import time
from datetime import datetime, timedelta
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from examples.demo.client import Client
from examples.demo.failure import Failed
from examples.demo.screen import Screen

TIMEOUT_S = 300.0
POLL_S = 0.05
TERMINAL = ("execution.completed", "execution.failed", "execution.rejected")


def follow(client: Client, screen: Screen, id: str, rows: int) -> int:
    """Print every event until the last one; their number. Raises Failed unless the execution completed."""
    last: dict[str, Any] = {"type": "", "sequence": 0}
    began: datetime | None = None
    with _bar(screen) as bar:
        task = bar.add_task("rows", total=rows)
        deadline = time.monotonic() + TIMEOUT_S
        while last["type"] not in TERMINAL:
            events = client.events(id, after=last["sequence"])
            for event in events:
                if event["sequence"] != last["sequence"] + 1:
                    raise Failed(f"event {last['sequence'] + 1}: expected it next, found {event['sequence']}")
                at = datetime.fromisoformat(event["occurred_at"])
                began = began or at
                bar.console.print(f"  {_line(event, at - began)}")
                if event["type"] == "step.progressed":
                    bar.update(task, completed=event["rows"])
                last = event
            if not events:
                if time.monotonic() > deadline:
                    raise Failed(f"{id}: expected its end within {TIMEOUT_S:g} s, found {last['type']} last")
                time.sleep(POLL_S)
    if last["type"] != "execution.completed":
        why = last.get("message") or last.get("errors")
        raise Failed(f"{id}: expected execution.completed, found {last['type']}: {why}")
    return int(last["sequence"])


def _bar(screen: Screen) -> Progress:
    """A bar on a terminal, nothing elsewhere: there the events are the progress."""
    console = screen.console
    return Progress(
        TextColumn("    "),
        BarColumn(40),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def _line(event: dict[str, Any], since: timedelta) -> str:
    at = f"{event['sequence']:>4} {since.total_seconds():8.3f} s"
    return f"{at}  {event['type']:<20} {_detail(event)}".rstrip()


def _detail(event: dict[str, Any]) -> str:
    match event["type"]:
        case "execution.accepted":
            return ", ".join(f"step {step['name']} ({step['kind']})" for step in event["plan"])
        case "step.running":
            return f"attempt {event['attempt']} on {event['worker']}"
        case "step.progressed":
            return f"{event['detail']} written; so far {event['rows']:,} rows, {event['bytes']:,} bytes"
        case "step.retry_scheduled" | "step.failed" | "execution.failed":
            return f"{event['reason']}: {event['message']}"
        case "file.published":
            file = event["file"]
            return f"{file['name']}, {file['rows']:,} rows, sha256 {file['sha256'][:16]}"
        case "execution.completed":
            return f"{event['files']} files, {event['rows']:,} rows, {event['bytes']:,} bytes"
        case _:
            return ""
