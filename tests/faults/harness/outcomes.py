"""What must hold of pipelines after a siege, over the whole log and every call; each fault in words."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from services.contracts.commands import StepRequested
from services.contracts.events import Event, HookFailed, StepCompleted, StepFailed, type_of
from services.runtime import schemas
from tests import waiting
from tests.faults.harness import orders
from tests.faults.harness.orders import Expected
from tests.faults.harness.shop import Call
from tests.faults.harness.siege import Siege
from tests.faults.harness.topic import Reader, Stories, Story

HEARD_WITHIN_S = 60.0
LATE_S = 5.0
LOST = "worker_lost"
UNEXPLAINED = "unexplained"
RECOVERED_WITHIN = timedelta(seconds=30)
"""A worker that died so long ago may still hold up what was put into its partitions."""


@dataclass(slots=True)
class Found:
    """What a siege came to. `late` counts the calls begun after the terminal event, by what explains them."""

    faults: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    repeated: int = 0
    attempts: int = 0
    lost: int = 0
    casts_lost: int = 0
    late: Counter[str] = field(default_factory=Counter)
    longest_late_s: float = 0.0


def check(siege: Siege) -> Found:
    """Every invariant."""
    _await_calls(siege)
    found = Found()
    bootstrap = siege.system.state["kafka_bootstrap"]
    with Stories(bootstrap) as reader:
        reader.read_on()
        stories = reader.by_id
    found.faults += [f"{id}: nobody asked for it" for id in stories.keys() - {*siege.asked.values()}]
    for number, id in siege.asked.items():
        story = stories.get(id)
        if story is None:
            found.faults.append(f"order {number}: accepted, and nothing in the log")
            continue
        found.ends[story.end or "none"] += 1
        found.faults += [
            f"order {number}: {fault}" for fault in _story_faults(story, orders.expected(number))
        ]
    asked_at = _check_attempts(bootstrap, stories, found)
    _check_keys(siege, stories, found)
    _check_late(siege, stories, asked_at, found)
    return found


def _await_calls(siege: Siege) -> None:
    """Actions that were cast end after the execution; those that do not are told as faults later."""
    wanted = {
        orders.key(id, name)
        for number, id in siege.asked.items()
        for name in orders.expected(number).calls | orders.expected(number).cast
    }
    try:
        waiting.until(lambda: wanted <= siege.shop.keys(), HEARD_WITHIN_S, "every call")
    except AssertionError:
        pass


def _story_faults(story: Story, wanted: Expected) -> Iterator[str]:
    """It ended as one that nobody disturbed."""
    yield from story.faults
    if story.end != wanted.end:
        yield f"expected {wanted.end}, found {story.end}: {story.events[-1]}"
    completed = [event for event in story.events if isinstance(event, StepCompleted)]
    names = [event.step for event in completed]
    if names != [*wanted.completed]:
        yield f"expected the steps {[*wanted.completed]}, found {names}"
    for event in completed:
        output = wanted.completed.get(event.step)
        if output is not None and event.output != output:
            yield f"{event.step}: expected {output}, found {event.output}"
    failed = {event.step: event.reason for event in story.events if isinstance(event, StepFailed)}
    if failed != wanted.failed:
        yield f"expected the failures {dict(wanted.failed)}, found {failed}"


def _check_attempts(bootstrap: str, stories: Mapping[str, Story], found: Found) -> dict[str, datetime]:
    """No attempt is asked for after the terminal event. The instant of the first order under each key."""
    first: dict[str, datetime] = {}
    attempts: dict[str, StepRequested] = {}
    with Reader(bootstrap, "step.requested") as reader:
        for message in reader.read():
            record = cast(StepRequested, schemas.codec().decode("step.requested", message.value() or b""))
            attempts[record.attempt_id] = record
    for record in attempts.values():
        key = orders.key(record.execution_id, record.step)
        first[key] = min(record.requested_at, first.get(key, record.requested_at))
        end = _end(stories[record.execution_id]) if record.execution_id in stories else None
        if end is not None and record.requested_at > end.occurred_at:
            found.faults.append(
                f"{record.execution_id}: attempt {record.attempt} of {record.step} was asked for at"
                f" {record.requested_at}, after {type_of(end)} at {end.occurred_at}"
            )
    found.attempts = len(attempts)
    found.lost = len(attempts) - len(first)
    return first


def _check_keys(siege: Siege, stories: Mapping[str, Story], found: Found) -> None:
    """Every key was heard at least once, and none that belongs to nobody."""
    heard = Counter(call.key for call in [*siege.shop.calls])
    found.calls, found.repeated = heard.total(), heard.total() - len(heard)
    known: set[str] = set()
    for number, id in siege.asked.items():
        wanted = orders.expected(number)
        keys = {name: orders.key(id, name) for name in wanted.calls | wanted.cast}
        known.update(keys.values())
        for name in sorted(name for name, key in keys.items() if not heard[key]):
            if name in wanted.cast and id in stories and _is_lost(stories[id], name):
                found.casts_lost += 1
            else:
                found.faults.append(f"order {number} {id}: nobody heard {name}")
    strangers = [call for call in siege.shop.calls if call.key not in known]
    found.faults += [f"{call}: a key of nobody" for call in strangers]


def _is_lost(story: Story, name: str) -> bool:
    """Whether the history tells that this action was lost with its worker."""
    step, on, *_ = name.split(".")
    return any(
        isinstance(event, HookFailed) and (event.step, event.on, event.reason) == (step, on, LOST)
        for event in story.events
    )


def _check_late(
    siege: Siege, stories: Mapping[str, Story], asked_at: Mapping[str, datetime], found: Found
) -> None:
    """Calls begun after the terminal event come within 5 s of it, or because somebody was killed."""
    for call in [*siege.shop.calls]:
        id = siege.asked[call.number]
        end = _end(stories[id]) if id in stories else None
        if end is None or call.at <= end.occurred_at:
            continue
        span = call.at - end.occurred_at
        found.longest_late_s = max(found.longest_late_s, span.total_seconds())
        why = _explained(siege, call, span, asked_at.get(call.key), _is_cast(call, id))
        found.late[why] += 1
        if why == UNEXPLAINED:
            found.faults.append(f"order {call.number} {id}: {call.path} began {span} after {type_of(end)}")


def _is_cast(call: Call, id: str) -> bool:
    """Whether nothing waited for the call."""
    return call.key in {orders.key(id, name) for name in orders.expected(call.number).cast}


def _explained(siege: Siege, call: Call, span: timedelta, asked_at: datetime | None, is_cast: bool) -> str:
    """A cast call is asked for before the end and may be made after it: later where its worker was killed."""
    kind = "cast" if is_cast else "step"
    if span.total_seconds() <= LATE_S:
        return f"{kind} within 5 s"
    if asked_at is None:
        return UNEXPLAINED
    if any(victim == "manager" and asked_at <= at <= call.at for victim, at in siege.deaths):
        return f"{kind} after a manager crash"
    if is_cast and any(asked_at - RECOVERED_WITHIN <= at <= call.at for _, at in siege.deaths):
        return "cast after a worker crash"
    return UNEXPLAINED


def _end(story: Story) -> Event | None:
    return next((event for event in story.events if type_of(event) == story.end), None)


def row(found: Found, siege: Siege, seed: int) -> str:
    """One line of Markdown under its head."""
    kills = Counter(victim for victim, _ in siege.deaths)
    head = (
        "| seed | kill -9 | pipelines | ended | attempts asked for | asked for again | calls | repeated"
        " | casts lost | begun after the end | answers after 5 s |"
    )
    late = _words(found.late) + (f" (at most {found.longest_late_s:.1f} s)" if found.late else "")
    cells = (
        *(seed, _words(kills), len(siege.asked), _words(found.ends), found.attempts, found.lost),
        *(found.calls, found.repeated, found.casts_lost, late or "none", siege.answers_late),
    )
    return "\n".join([head, "|" + "---|" * 11, "| " + " | ".join(map(str, cells)) + " |"])


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{name.removeprefix('execution.')} {count}" for name, count in sorted(counts.items()))
