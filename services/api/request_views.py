"""Service requests as callers see them: S3's words, values with what is secret hidden."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.api import views
from services.api.core.links import Links
from services.api.executions import Execution, File, Word
from services.contracts.public import masked
from services.contracts.status import WORDS, Status

ROUTE = "/v1/requests"


def links(request_id: str) -> dict[str, str]:
    """Where to look next."""
    further = views.execution_links(request_id)
    return {"self": f"{ROUTE}/{request_id}", "execution": further["self"], "events": further["events"]}


def accepted(request_id: str) -> dict[str, Any]:
    """The answer to a creation: the same for as often as it is repeated."""
    status = WORDS[Status.PENDING].request
    return {"id": request_id, "execution_id": request_id, "status": status, "links": links(request_id)}


def summary(row: Execution) -> dict[str, Any]:
    """One entry of the list."""
    return {
        "id": row.execution_id,
        "execution_id": row.execution_id,
        "name": row.name,
        "tag": row.tag,
        "status": WORDS[Status(row.status)].request,
        "pipeline": {"id": row.dataset_id, "revision": row.dataset_revision},
        "sequence": row.sequence,
        "created_by": row.principal,
        "owner": row.owner,
        "created_at": row.submitted_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "links": links(row.execution_id),
    }


def request(
    row: Execution,
    words: Sequence[Word],
    files: Sequence[File],
    signer: Links,
    public_url: str,
    now: datetime,
) -> dict[str, Any]:
    """All there is to know. `content_hash` names what an approver would approve."""
    whole = views.execution(row, files, signer, public_url, now)
    asked = row.waiting and row.waiting["approval"]
    return {
        **summary(row),
        "values": masked(row.form),
        "waiting": whole["waiting"],
        "content_hash": asked and asked["content_hash"],
        "steps": [_step(step, words) for step in row.steps],
        "approvals": row.approvals,
        "hooks": row.hooks,
        **{name: whole[name] for name in ("files", "errors", "failure", "rerun_of", "reruns", "incomplete")},
    }


def approval(row: Execution) -> dict[str, Any]:
    """What somebody is asked to approve."""
    asked = row.waiting["approval"]
    detail = asked["detail"] or {}
    return {
        "request_id": row.execution_id,
        "step": asked["step"],
        "name": row.name,
        "pipeline": {"id": row.dataset_id, "revision": row.dataset_revision},
        "created_by": row.principal,
        "values": masked(row.form),
        "since": asked["since"],
        "until": asked["until"],
        "content_hash": asked["content_hash"],
        **{name: detail.get(name) for name in ("approvers", "groups", "quorum", "form", "on_expiry")},
        "links": links(row.execution_id),
    }


def _step(step: Any, words: Sequence[Word]) -> dict[str, Any]:
    events = [
        {"event_type": word.event_type, "attempt": word.attempt, "occurred_at": word.occurred_at}
        for word in words
        if word.step_name == step["name"]
    ]
    return {
        "step_name": step["name"],
        "step_type": step["kind"],
        "status": step["status"],
        "events": events,
        **{name: step[name] for name in ("attempt", "reason", "message", "retry_at")},
        "waits": step.get("waits"),
    }
