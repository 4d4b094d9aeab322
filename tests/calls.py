"""What tests of API steps share: steps as the manager asks for them, and how the real kind ends them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.contracts.commands import StepRequested
from services.executor.steps import CALLS
from services.executor.steps.outcome import Done, Fail, Outcome, Retry
from tests import exporting
from tests.exporting import AT, ATTEMPT, EXECUTION, World

LOCAL = "127.0.0.0/8"


def api(
    url: str, attempt: int = 1, *, step_timeout_s: int = 60, visit: int = 1, **parameters: Any
) -> StepRequested:
    """One attempt of a step that calls this URL."""
    return StepRequested(
        attempt_id=f"{attempt}{ATTEMPT}"[:40],
        execution_id=EXECUTION,
        tenant="acme",
        step="call",
        kind="API",
        attempt=attempt,
        parameters={"method": "POST", "url": url, "headers": {}, "data": {}, **parameters},
        timeout_s=step_timeout_s,
        requested_at=AT,
        visit=visit,
    )


@contextmanager
def world(*allow: str, **secrets: str) -> Iterator[World]:
    """A worker's surroundings that may call these networks; the secrets are the tenant's."""
    world = World({}, outbound=exporting.outbound(*allow, **secrets))
    try:
        yield world
    finally:
        world.outbound.caller.close()


async def outcome(world: World, step: StepRequested) -> Outcome:
    """How the step ends, in the worker's own loop."""
    call = world.outbound.caller.begin(CALLS[step.kind].run(step, world.context()))
    return await asyncio.wrap_future(call)


async def done(world: World, step: StepRequested) -> Any:
    """The output of a step that must succeed."""
    ended = await outcome(world, step)
    assert isinstance(ended, Done), ended
    return ended.output


async def failed(world: World, step: StepRequested) -> Fail:
    """The end of a step that must fail."""
    ended = await outcome(world, step)
    assert isinstance(ended, Fail), ended
    return ended


async def retried(world: World, step: StepRequested) -> Retry:
    """The end of a step that must be tried again."""
    ended = await outcome(world, step)
    assert isinstance(ended, Retry), ended
    return ended
