"""Which listeners hear of an event, and the delivery each of them is owed."""

from dataclasses import dataclass, field

import msgspec

from services.contracts import ids, public, urls
from services.contracts.commands import Callback
from services.contracts.events import ALIASES, TYPES, Event, ExecutionAccepted, matching, type_of

UNREADABLE = "unreadable"
"""The destination of a URL that no check of ours would have let in; the dispatcher says what is wrong."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One inline callback of an execution; `id` is `<execution id>:<index>`. Header values are sealed."""

    id: str
    events: tuple[str, ...]
    url: str
    method: str
    headers: dict[str, str] = field(default_factory=dict)
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event owed to one listener. `body` is what will be sent, byte for byte, at every attempt.

    `destination` is `<scheme>://<host>:<port>`: receivers at the same one share a limit.
    """

    delivery_id: str
    execution_id: str
    tenant: str
    event_id: str
    sequence: int
    event_type: str
    listener: str
    destination: str
    url: str
    method: str
    headers: dict[str, str]
    secret: str | None
    body: bytes


def listeners_of(event: ExecutionAccepted) -> tuple[Listener, ...]:
    """The request's callbacks as listeners; one that asks for no event we know has nothing to hear."""
    found = (
        _listener(f"{event.execution_id}:{index}", callback)
        for index, callback in enumerate(event.request.callbacks)
    )
    return tuple(listener for listener in found if listener is not None)


def match(event: Event, listeners: tuple[Listener, ...]) -> tuple[Delivery, ...]:
    """A delivery for each listener that asked for events of this type."""
    wanted = [listener for listener in listeners if type_of(event) in matching(listener.events)]
    if not wanted:
        return ()
    body = msgspec.json.encode(public.cloud_event(event))
    return tuple(_delivery(event, listener, body) for listener in wanted)


def _listener(id: str, callback: Callback) -> Listener | None:
    # A request of another service, or of a newer api, may hold names that are unknown here.
    known = tuple(name for name in callback.events if name in TYPES or name in ALIASES)
    if callback.events and not known:
        return None
    return Listener(id, known, callback.url, callback.method, dict(callback.headers), callback.secret)


def _delivery(event: Event, listener: Listener, body: bytes) -> Delivery:
    return Delivery(
        delivery_id=ids.delivery_id(event.event_id, listener.id),
        execution_id=event.execution_id,
        tenant=event.tenant,
        event_id=event.event_id,
        sequence=event.sequence,
        event_type=type_of(event),
        listener=listener.id,
        destination=_destination(listener.url),
        url=listener.url,
        method=listener.method,
        headers=listener.headers,
        secret=listener.secret,
        body=body,
    )


def _destination(url: str) -> str:
    try:
        parsed = urls.parse(url)
    except ValueError:
        return UNREADABLE
    return f"{parsed.scheme}://{parsed.host}:{parsed.port}"
