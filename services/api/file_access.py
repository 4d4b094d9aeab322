"""Files by their links: which file a link may open, that it was opened, and that its links are void."""

from typing import Any

from services.api.executions import FILE_COLUMNS, File

# A link speaks for the one who asked for the file: it ends when the last of that one's keys is revoked or has
# expired. Requests of other services come from someone without a key here, and are bound by the link's own
# terms alone.
_OPENABLE = f"""
    SELECT {FILE_COLUMNS} FROM api.file AS file
    WHERE execution_id = %s AND name = %s AND EXISTS (
        SELECT FROM api.job_request AS asked WHERE asked.execution_id = file.execution_id AND NOT EXISTS (
            SELECT FROM api.api_key AS key WHERE key.tenant = asked.tenant AND key.principal = asked.principal
            HAVING bool_and(key.revoked_at IS NOT NULL OR coalesce(key.expires_at <= now(), false))
        )
    )
"""  # noqa: S608 the columns are a constant


def openable(cursor: Any, execution_id: str, name: str) -> File | None:
    """A published file of any tenant, unless its owner is disabled: the link says who may read it."""
    cursor.execute(_OPENABLE, (execution_id, name))
    row = cursor.fetchone()
    return None if row is None else File(*row)


def record(
    cursor: Any,
    file: File,
    method: str,
    status: int,
    span: tuple[int, int] | None,
    key_id: str,
    client: str | None,
) -> None:
    """Keep that a good link was used; `span` is the bytes to be sent, with its end behind the last one."""
    first, last = (span[0], span[1] - 1) if span is not None and span[0] < span[1] else (None, None)
    cursor.execute(
        "INSERT INTO api.file_access"
        " (execution_id, name, tenant, method, status, first_byte, last_byte, key_id, client)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (file.execution_id, file.name, file.tenant, method, status, first, last, key_id, client),
    )


def revoke(cursor: Any, tenant: str, execution_id: str, name: str) -> bool:
    """Void every link that was made to the tenant's file; False when there is no such file."""
    cursor.execute(
        "UPDATE api.file SET link_generation = link_generation + 1"
        " WHERE execution_id = %s AND tenant = %s AND name = %s",
        (execution_id, tenant, name),
    )
    return bool(cursor.rowcount)
