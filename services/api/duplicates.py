"""A request that is made again although its execution has failed: the execution is run again, once.

Reruns are counted under the lock of the original's row, so of many such requests at once one gives the
command and the others find it.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.api import commands, quota
from services.api.commands import Command
from services.api.keys import Caller
from services.api.parts import Parts
from services.api.quota import OverQuota
from services.contracts import ids
from services.contracts.commands import ExecutionCommand
from services.contracts.status import Status

ANSWER_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class _Found:
    execution_id: str
    given: Command | None = None


async def rerun_if_failed(parts: Parts, caller: Caller, original: str) -> str:
    """The id of the newest of the original and its reruns, which is a new rerun if all before it failed.

    Raises DatabaseAway and Problem (429). A rerun that nobody has answered for within 5 s is returned all the
    same: the command is stored.
    """
    with parts.live.watch(original) as watch:
        try:
            found = await parts.pool.write(lambda cursor: _newest(cursor, parts, caller, original))
        except OverQuota as error:
            raise quota.problem(error) from None
        if found.given is None:
            return found.execution_id
        parts.wake_relay()
        command: Command | None = found.given
        until = asyncio.get_running_loop().time() + ANSWER_WITHIN_S
        while command is not None and command.answer is None:
            if not await watch.wait(until - asyncio.get_running_loop().time()):
                break
            command = await parts.pool.read(partial(_find, caller.tenant, command.command_id))
    return found.execution_id


def _find(tenant: str, command_id: str, cursor: Any) -> Command | None:
    return commands.find(cursor, tenant, command_id)


def _newest(cursor: Any, parts: Parts, caller: Caller, original: str) -> _Found:
    cursor.execute(
        "SELECT state, rerun_count FROM api.job_request WHERE execution_id = %s AND tenant = %s FOR UPDATE",
        (original, caller.tenant),
    )
    state, count = cursor.fetchone()
    newest = ids.rerun_id(original, count) if count else original
    if count:
        state = _state(cursor, caller.tenant, original, newest)
    if state != Status.FAILED:
        return _Found(newest)
    asked = ExecutionCommand(
        command_id=ids.command_id(caller.tenant, caller.principal, original, "rerun_if_failed", str(count)),
        execution_id=original,
        tenant=caller.tenant,
        kind="rerun",
        requested_by=caller.principal,
        role=caller.role.value,
        requested_at=parts.clock.now(),
        reason="rerun_if_failed",
        owner=caller.owner,
    )
    given = commands.give(cursor, asked, ids.body_hash({}), parts.quota)
    assert given.rerun_id is not None
    return _Found(given.rerun_id, given)


def _state(cursor: Any, tenant: str, original: str, rerun: str) -> str:
    """Of a rerun whose own events may not have come yet. One that was refused has failed."""
    cursor.execute(
        "SELECT state FROM api.job_request WHERE execution_id = %s AND tenant = %s", (rerun, tenant)
    )
    if row := cursor.fetchone():
        return str(row[0])
    cursor.execute(
        "SELECT answer FROM api.command WHERE execution_id = %s AND rerun_id = %s", (original, rerun)
    )
    row = cursor.fetchone()
    return Status.FAILED if row and row[0] == "command.refused" else Status.PENDING
