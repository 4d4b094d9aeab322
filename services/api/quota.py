"""How many executions of a tenant have not ended: counted with the rows, in their transactions.

The count is the sum of two rows, so that submits and the projector never wait for each other: one of what
api accepted (requests, and commands to run something again until they are answered), one of what events told
since (what others asked for, and minus what has ended). A submit looks at the second as of its own
beginning and locks the first, so any number of api processes accept no more than the quota together.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from psycopg2.extras import execute_values

from services.api.problems import Problem

ACCEPTED, TOLD = 0, 1
"""Values of `side` in api.tenant_load."""
RETRY_AFTER_S = 10


class OverQuota(Exception):
    """The tenant has as many executions that have not ended as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the tenant has as many executions running and queued as it may have at one time, {limit}"
            " (MILLSTREAM_QUOTA__EXECUTIONS, MILLSTREAM_QUOTA__TENANTS); wait for some to end, or cancel some"
        )


def problem(error: OverQuota) -> Problem:
    """429: nothing was accepted, and repeating is safe with a key."""
    return Problem("quota-exceeded", str(error), headers={"Retry-After": str(RETRY_AFTER_S)})


def know(cursor: Any, tenants: list[str]) -> None:
    """Give tenants the row that their submits lock."""
    execute_values(
        cursor,
        "INSERT INTO api.tenant_load (tenant, side, open) VALUES %s ON CONFLICT DO NOTHING",
        [(tenant, ACCEPTED, 0) for tenant in sorted(tenants)],
    )


def reserve(cursor: Any, tenant: str, limit: int) -> None:
    """One more, if there is room: for a command that leads to another execution. Raises OverQuota."""
    cursor.execute(_RESERVE, {"tenant": tenant, "accepted": ACCEPTED, "told": TOLD})
    if cursor.fetchone()[0] > limit:
        raise OverQuota(limit)


def note(cursor: Any, changes: Mapping[str, int]) -> None:
    """What events told of each tenant: more that is open, or less. Comes last: others want these rows."""
    rows = [(tenant, TOLD, change) for tenant, change in sorted(changes.items()) if change]
    if rows:
        execute_values(cursor, _NOTE, rows)


def changes(written: Iterable[tuple[str, bool, bool]]) -> Counter[str]:
    """Of rows as tenant, whether it was open before, whether it is now."""
    found: Counter[str] = Counter()
    for tenant, before, now in written:
        found[tenant] += now - before
    return found


_RESERVE = """
    INSERT INTO api.tenant_load AS load (tenant, side, open) VALUES (%(tenant)s, %(accepted)s, 1)
    ON CONFLICT (tenant, side) DO UPDATE SET open = load.open + 1
    RETURNING open + coalesce(
        (SELECT open FROM api.tenant_load WHERE tenant = %(tenant)s AND side = %(told)s), 0)
"""
_NOTE = """
    INSERT INTO api.tenant_load AS load (tenant, side, open) VALUES %s
    ON CONFLICT (tenant, side) DO UPDATE SET open = load.open + excluded.open
"""
