"""What the routes work with; `__main__` puts it together, and tests do the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from services.api.checking import Checking
from services.api.core.links import Links
from services.api.door import Door, address_of
from services.api.intake import Intake
from services.api.keys import Caller, Keyring, Role
from services.api.live import Live
from services.api.pool import Pool
from services.api.problems import Problem
from services.api.streams import EventStream, Looking, Streams
from services.jobs.sources import Tenants
from services.runtime.blobs import Blobs
from services.runtime.container import Files
from services.runtime.entropy import Clock
from services.runtime.sealing import Sealer
from services.runtime.settings import Quota


@dataclass(frozen=True)
class Parts:
    """The collaborators of all routes."""

    pool: Pool
    keyring: Keyring
    intake: Intake
    sealer: Sealer
    links: Links
    blobs: Blobs
    files: Files
    live: Live
    clock: Clock
    public_url: str
    wake_relay: Callable[[], None]
    source_tenants: Tenants
    quota: Quota
    checking: Checking = field(default_factory=Checking)
    door: Door = field(default_factory=Door)
    streams: Streams = field(default_factory=Streams)


def parts_of(request: Request) -> Parts:
    """The parts of the application that serves this request."""
    return cast(Parts, request.app.state.parts)


def follow(request: Request, parts: Parts, caller: Caller, execution_id: str, look: Looking) -> EventStream:
    """The stream of an execution's changes, for as long as the caller's key is good. Raises Problem (429)."""
    parts.door.stream(request.scope, caller)
    return parts.streams.follow(parts.live, execution_id, look, lambda: parts.keyring.is_good(caller))


_SCHEME = HTTPBearer(
    auto_error=False,
    scheme_name="apiKey",
    bearerFormat="ms_<prefix>_<secret>",
    description="An API key. A viewer reads, an author also submits, an operator also writes definitions,"
    " an admin may do everything.",
)


class Needs:
    """A dependency that gives the Caller, or answers 401 or 403."""

    def __init__(self, role: Role) -> None:
        self._role = role

    async def __call__(self, request: Request, _: Annotated[object, Security(_SCHEME)]) -> Caller:
        """Raises Problem."""
        parts = parts_of(request)
        caller = await parts.keyring.caller(request.headers.get("authorization"), address_of(request.scope))
        parts.door.enter(request.scope, caller)
        if not caller.role.covers(self._role):
            raise Problem(
                "forbidden", f"expected a key of role {self._role} or higher, found role {caller.role}"
            )
        return caller


async def _parts(request: Request) -> Parts:
    """A coroutine: FastAPI runs a plain function in another thread, which takes longer than the function."""
    return parts_of(request)


AnyParts = Annotated[Parts, Depends(_parts)]
Viewer = Annotated[Caller, Depends(Needs(Role.VIEWER))]
Author = Annotated[Caller, Depends(Needs(Role.AUTHOR))]
Operator = Annotated[Caller, Depends(Needs(Role.OPERATOR))]
