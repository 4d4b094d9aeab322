"""Executions as text for people."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from services.cli import output, targets


def executions(items: Sequence[Mapping[str, Any]]) -> None:
    """The list."""
    headings = ("EXECUTION", "STATUS", "TYPE", "NAME", "TAG", "BY", "SUBMITTED", "FINISHED")
    names = ("execution_id", "status", "job_type", "name", "tag", "created_by")
    rows = [
        (*(item[n] for n in names), output.instant(item["submitted_at"]), output.instant(item["finished_at"]))
        for item in items
    ]
    output.table(headings, rows)


def execution(item: Mapping[str, Any]) -> None:
    """One, with steps and files."""
    dataset, pipeline = item["dataset"], item["pipeline"]
    failure = item["failure"] or {}
    output.fields(
        (
            ("execution", item["execution_id"]),
            ("status", item["status"]),
            ("job type", item["job_type"]),
            ("dataset", dataset and f"{dataset['id']} (revision {dataset['revision']})"),
            ("pipeline", pipeline and f"{pipeline['id']} (revision {pipeline['revision']})"),
            ("waits for", waiting(item["waiting"])),
            ("name", item["name"]),
            ("tag", item["tag"] or None),
            ("submitted", f"{output.instant(item['submitted_at'])} by {item['created_by'] or 'unknown'}"),
            ("started", output.instant(item["started_at"])),
            ("finished", output.instant(item["finished_at"])),
            ("failure", f"{failure.get('reason')}: {failure.get('message')}" if failure else None),
            *(("refused", f"{error['pointer']}: {error['message']}") for error in item["errors"] or ()),
        )
    )
    if item["steps"]:
        typer.echo("")
        _steps(item["steps"])
    if item["files"]:
        typer.echo("")
        files(item)


def waiting(found: Mapping[str, Any] | None) -> str | None:
    """What one waits for, from the field `waiting`."""
    if found is None:
        return None
    reason, until = found["reason"] or "approval", output.instant(found["until"])
    step = found["step"] or (found["approval"] or {}).get("step")
    return _WAITS.get(reason, reason).format(step=step) + (f" until {until}" if until else "")


_WAITS: Mapping[str, str] = {
    "approval": "approval of {step}",
    "paused": "the command resume",
    "pause_before": "the command resume, before {step}",
    "run_at": "a delayed start",
    "start": "the command start",
    "wait_after": "a pause after {step}",
    "wait_before": "a pause before {step}",
}


def _steps(steps: Sequence[Mapping[str, Any]]) -> None:
    headings = ("STEP", "KIND", "STATUS", "ATTEMPT", "FILES", "ROWS", "DETAIL")
    rows = [
        (
            *(step[name] for name in ("name", "kind", "status", "attempt", "files")),
            f"{step['rows']:,}",
            step["message"] or step["detail"],
        )
        for step in steps
    ]
    output.table(headings, rows)


def files(item: Mapping[str, Any]) -> None:
    """What an execution or request has published."""
    rows = [
        (file["name"], f"{file['rows']:,}", output.size(file["bytes"]), file["sha256"][:16])
        for file in item["files"]
    ]
    output.table(("FILE", "ROWS", "SIZE", "SHA-256"), rows)
    download = targets.command(f"job download {item['execution_id']}")
    output.note(f"\ndownload them: {download}")
