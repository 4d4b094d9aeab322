"""S1's requests in the database: the table `job_request` by (tenant, tag)."""

from collections.abc import Sequence
from typing import Any

from services.api.core.exhaust import Download, Job, Search
from services.contracts import file_names

_COLUMNS = (
    "request_id, tag, status, request_data, batch_filters, dt_job_submitted, dt_job_completed,"
    " execution_time, err_message, coalesce(updated_at, submitted_at), steps"
)
_NEWEST = " ORDER BY submitted_at DESC, execution_id DESC LIMIT %s"


def find(cursor: Any, tenant: str, tag: str, request_id: str) -> Job | None:
    """One request of the tenant."""
    cursor.execute(
        f"SELECT {_COLUMNS} FROM api.job_request WHERE tag = %s AND request_id = %s AND tenant = %s",  # noqa: S608
        (tag, request_id, tenant),
    )
    row = cursor.fetchone()
    return None if row is None else Job(*row)


def newest(cursor: Any, tenant: str, tag: str, limit: int) -> tuple[int, list[Job]]:
    """How many requests the tenant has made under the tag, and the newest of them."""
    return _found(cursor, "tenant = %s AND tag = %s", (tenant, tag), limit)


def search(cursor: Any, tenant: str, wanted: Search) -> tuple[int, list[Job]]:
    """How many of the tenant's tagged requests match, and the newest of them."""
    conditions = {
        # the column job_id, as wide as S1 has it, holds the beginning of a longer name
        "coalesce(dataset_id, job_type) = %s": wanted.job_id,
        "status = %s": wanted.status,
        "requested_channel = %s": wanted.channel,
        "dt_job_submitted >= %s": wanted.requested_date,
        "dt_job_submitted < %s::date + 1": wanted.requested_date,
    }
    given = {text: value for text, value in conditions.items() if value is not None}
    where = " AND ".join(["tenant = %s", "tag <> ''", *given])
    return _found(cursor, where, (tenant, *given.values()), wanted.limit)


def _found(cursor: Any, where: str, values: Sequence[Any], limit: int) -> tuple[int, list[Job]]:
    cursor.execute(f"SELECT count(*) FROM api.job_request WHERE {where}", values)  # noqa: S608
    (count,) = cursor.fetchone()
    cursor.execute(f"SELECT {_COLUMNS} FROM api.job_request WHERE {where} {_NEWEST}", (*values, limit))  # noqa: S608
    return count, [Job(*row) for row in cursor.fetchall()]


def downloads(cursor: Any, tenant: str, jobs: Sequence[Job]) -> dict[str, list[Download]]:
    """The reports of these requests, by request id and in order of name."""
    cursor.execute(
        "SELECT execution_id, tenant, name, link_generation FROM api.file"
        " WHERE execution_id = ANY(%s) AND tenant = %s AND name !~ %s ORDER BY name",
        ([job.request_id for job in jobs], tenant, file_names.MANIFESTS),
    )
    found: dict[str, list[Download]] = {}
    for request_id, *file in cursor.fetchall():
        found.setdefault(request_id, []).append(Download(*file))
    return found
