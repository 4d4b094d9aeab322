"""Rows as the JSON that callers get."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from services.api.commands import Command
from services.api.core.links import Links
from services.api.core.projection import RUN_AT
from services.api.definitions import Revision
from services.api.executions import Execution, File
from services.api.keys import Caller
from services.contracts.status import WORDS, Status


def me(caller: Caller) -> dict[str, Any]:
    """Who asks, as their key says."""
    return {
        "tenant": caller.tenant,
        "key_id": caller.key_id,
        "principal": caller.principal,
        "owner": caller.owner,
        "role": caller.role.value,
        "groups": caller.groups,
    }


def execution_links(execution_id: str) -> dict[str, str]:
    """Where to look next."""
    return {"self": f"/v1/executions/{execution_id}", "events": f"/v1/executions/{execution_id}/events"}


def accepted(execution_id: str) -> dict[str, Any]:
    """The answer to a submit: the same for as often as it is repeated."""
    return {
        "execution_id": execution_id,
        "status": Status.PENDING.value,
        "links": execution_links(execution_id),
    }


def command(row: Command) -> dict[str, Any]:
    """The answer to a cancel or rerun; `answer` is the type of the event that told, None until one has."""
    return {
        "command_id": row.command_id,
        "execution_id": row.execution_id,
        "kind": row.kind,
        "answer": row.answer,
        "rerun_id": row.rerun_id,
        "links": execution_links(row.execution_id),
    }


def summary(row: Execution) -> dict[str, Any]:
    """One entry of the list."""
    words = WORDS[Status(row.status)]
    return {
        "execution_id": row.execution_id,
        "name": row.name,
        "job_type": row.job_type,
        "tag": row.tag,
        "status": row.status,
        "words": {"exhaust": words.exhaust, "reporting": words.reporting, "request": words.request},
        "sequence": row.sequence,
        "created_by": row.principal,
        "submitted_at": row.submitted_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "links": execution_links(row.execution_id),
    }


def execution(
    row: Execution, files: Sequence[File], links: Links, public_url: str, now: datetime
) -> dict[str, Any]:
    """All there is to know, with links to the files that end a while after `now`."""
    held = None if row.dataset_id is None else {"id": row.dataset_id, "revision": row.dataset_revision}
    is_pipeline = row.job_type == "pipeline"
    return {
        **summary(row),
        "dataset": None if is_pipeline else held,
        "pipeline": held if is_pipeline else None,
        "waiting": _waiting(row.waiting, now),
        "approvals": row.approvals,
        "hooks": row.hooks,
        "steps": row.steps,
        "progress": _progress(row),
        "files": [_file(file, links, public_url, now) for file in files],
        "errors": row.errors,
        "failure": row.failure,
        "rerun_of": row.rerun_of,
        "reruns": row.reruns,
        "incomplete": row.incomplete,
    }


def _waiting(waiting: Any, now: datetime) -> Any:
    """What it waits for: no event tells that the instant at which it was to begin has come."""
    if waiting and waiting["reason"] == RUN_AT and datetime.fromisoformat(waiting["until"]) <= now:
        return None
    return waiting


def _progress(row: Execution) -> dict[str, Any]:
    """Steps done of steps planned, and what the steps have finished so far, published or not."""
    return {
        "steps_total": len(row.steps),
        "steps_completed": sum(1 for step in row.steps if step["status"] == "Completed"),
        **{unit: sum(step[unit] for step in row.steps) for unit in ("files", "rows", "bytes")},
    }


def _file(file: File, links: Links, public_url: str, now: datetime) -> dict[str, Any]:
    path, expires = links.link(
        file.tenant, file.execution_id, file.name, int(now.timestamp()), file.link_generation
    )
    return {
        "name": file.name,
        "batch": file.batch,
        "rows": file.rows,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "content_type": file.content_type,
        "url": public_url + path,
        "expires_at": now.replace(microsecond=0) + timedelta(seconds=expires - int(now.timestamp())),
    }


def definition(row: Revision) -> dict[str, Any]:
    """One revision with its body."""
    return {
        "id": row.id,
        "revision": row.revision,
        "etag": row.etag,
        "changed_at": row.changed_at,
        "changed_by": row.changed_by,
        "definition": row.body,
    }


def revision(row: Revision) -> dict[str, Any]:
    """One entry of the list of revisions."""
    return {
        "id": row.id,
        "revision": row.revision,
        "etag": row.etag,
        "changed_at": row.changed_at,
        "changed_by": row.changed_by,
        "deleted": row.deleted,
    }
