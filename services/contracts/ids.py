"""Ids that are pure functions of their cause, so that doing a thing twice names it once."""

import hashlib
import re
from typing import Any

import msgspec

EXECUTION_ID = re.compile(r"[0-9a-f]{40}")


def execution_id(tenant: str, principal: str, route: str, key: str) -> str:
    """The id of the execution that this caller asked for under this idempotency key: 40 hex digits."""
    return _digest("execution", tenant, principal, route, key)[:40]


def attempt_id(execution: str, step: str, attempt: int) -> str:
    """The id of one attempt of one step: 40 hex digits, the key of `step.requested`."""
    return _digest("attempt", execution, step, str(attempt))[:40]


def step_key(execution: str, step: str, visit: int) -> str:
    """What all attempts of one visit to a step share, for receivers that must act once: 40 hex digits."""
    return _digest("step", execution, step, str(visit))[:40]


def rerun_id(execution: str, number: int) -> str:
    """The id of the execution's rerun with this number, from 1: 40 hex digits."""
    return _digest("rerun", execution, str(number))[:40]


def command_id(tenant: str, principal: str, execution: str, kind: str, key: str) -> str:
    """The id of the command that this caller gave under this idempotency key: 40 hex digits."""
    return _digest("command", tenant, principal, execution, kind, key)[:40]


def event_id(execution: str, sequence: int) -> str:
    """The id of the event with this sequence: 32 hex digits."""
    # As _digest makes it, without the detour: every event has one.
    number = str(sequence)
    text = f"5:event{len(execution)}:{execution}{len(number)}:{number}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def delivery_id(event: str, listener: str) -> str:
    """The `webhook-id` of one event for one listener, the same over all attempts: 32 hex digits."""
    return _digest("delivery", event, listener)[:32]


def chain(previous: bytes, value: bytes) -> bytes:
    """The next link of an execution's hash chain over the exact bytes of its events: 32 bytes."""
    return hashlib.sha256(previous + value).digest()


def body_hash(body: Any) -> str:
    """A hash over a JSON-like value that does not depend on the order of its keys: 64 hex digits."""
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def traceparent(execution: str, cause: str) -> str:
    """A W3C trace context: all records of one execution share a trace, each has a span of its own."""
    return f"00-{execution[:32]}-{cause[:16]}-01"


def _digest(*parts: str) -> str:
    # Lengths are part of the text: ("ab", "c") and ("a", "bc") must not meet.
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()
