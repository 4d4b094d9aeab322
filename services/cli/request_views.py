"""Service requests as text for people."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from services.cli import output, targets, views

Item = Mapping[str, Any]


def requests(items: Sequence[Item]) -> None:
    """The list."""
    rows = [
        (
            *(item["id"], item["status"], _pipeline(item), item["name"], item["tag"], item["created_by"]),
            *(output.instant(item["created_at"]), output.instant(item["finished_at"])),
        )
        for item in items
    ]
    output.table(("REQUEST", "STATUS", "PIPELINE", "NAME", "TAG", "BY", "CREATED", "FINISHED"), rows)


def approvals(items: Sequence[Item]) -> None:
    """What waits for somebody."""
    rows = [
        (item["request_id"], item["step"], _pipeline(item), item["created_by"], output.instant(item["until"]))
        for item in items
    ]
    output.table(("REQUEST", "STEP", "PIPELINE", "ASKED BY", "EXPIRES"), rows)
    output.note(f"\n{targets.command('request approve <request>')}, or reject <request> --reason ...")


def request(item: Item) -> None:
    """One, with steps and what was said about approvals."""
    failure = item["failure"] or {}
    output.fields(
        (
            ("request", item["id"]),
            ("status", item["status"]),
            ("waits for", views.waiting(item["waiting"])),
            ("content", item["content_hash"]),
            ("pipeline", _pipeline(item)),
            ("name", item["name"]),
            ("tag", item["tag"] or None),
            ("created", f"{output.instant(item['created_at'])} by {item['created_by'] or 'unknown'}"),
            ("started", output.instant(item["started_at"])),
            ("finished", output.instant(item["finished_at"])),
            ("failure", f"{failure.get('reason')}: {failure.get('message')}" if failure else None),
            *(("refused", f"{error['pointer']}: {error['message']}") for error in item["errors"] or ()),
            *((f"  {name}", value) for name, value in (item["values"] or {}).items()),
        )
    )
    if item["steps"]:
        typer.echo("")
        rows = [
            (s["step_name"], s["step_type"], s["status"], s["attempt"], s["message"] or s["reason"])
            for s in item["steps"]
        ]
        output.table(("STEP", "TYPE", "STATUS", "ATTEMPT", "DETAIL"), rows)
    if item["approvals"]:
        typer.echo("")
        said = [
            (w["step"], w["decision"], w["by"], output.instant(w["at"]), w["remark"])
            for w in item["approvals"]
        ]
        output.table(("APPROVAL", "DECISION", "BY", "AT", "REMARK"), said)
    if item["files"]:
        typer.echo("")
        views.files(item)


def _pipeline(item: Item) -> str:
    return f"{item['pipeline']['id']} ({item['pipeline']['revision']})"
