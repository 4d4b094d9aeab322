"""Policies of a step and of a whole pipeline: retries, timeouts, waits, limits, priority; their bounds."""

import math
import re
from typing import Any

from services.contracts.flow import QUEUE_TIMEOUT_S, Retry
from services.jobs.fields import Fields, listed, shown, storable
from services.jobs.pipeline.shape import PRIORITIES, Limit

ATTEMPTS_MAX = 100
DAY_S = 24 * 3600
STEP_TIMEOUT_MAX_S = 7 * DAY_S
STEP_TOTAL_MAX_S = 30 * DAY_S
QUEUE_TIMEOUT_MAX_S = 30 * DAY_S
EXECUTION_TIMEOUT_MAX_S = 366 * DAY_S
WAIT_MAX_S = 30 * DAY_S
BACKOFF_MAX_S = DAY_S
STEP_RUNS_MAX = 1000
LIMITS_MAX = 10
LIMIT_MAX = 10_000
KEY_CHARS_MAX = 200
REASONS_MAX = 50
_REASON = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RETRY_KEYS = ("max_attempts", "backoff_s", "backoff_max_s", "jitter", "only_on", "stop_on")


def whole(fields: Fields, key: str, most: int, default: Any, least: int = 1) -> Any:
    """A whole number within bounds; `default` when it is absent or wrong."""
    value = fields.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        wanted = f"a whole number from {least} to {most}"
        fields.faults.add(fields.pointer(key), f"expected {wanted}, found {shown(value)}")
        return default
    return value


def number(fields: Fields, key: str, most: float, default: float) -> float:
    """A number from 0 up to a bound; `default` when it is absent or wrong."""
    value = fields.get(key)
    if value is None:
        return default
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not 0 <= value <= most:
        fields.faults.add(
            fields.pointer(key), f"expected a number from 0 to {most:.10g}, found {shown(value)}"
        )
        return default
    return float(value)


def flag(fields: Fields, key: str) -> bool:
    """true or false; false when it is absent or wrong."""
    value = fields.get(key)
    if value is not None and not isinstance(value, bool):
        fields.faults.add(fields.pointer(key), f"expected true or false, found {shown(value)}")
    return value is True


def retry(step: Fields, attempts: int) -> tuple[Retry, int]:
    """How a step is tried again, and how often at most; `attempts` is the kind's own number."""
    if step.get("retry") is None:
        return Retry(), attempts
    fields = step.object("retry", _RETRY_KEYS)
    usual = Retry()
    backoff_s = number(fields, "backoff_s", BACKOFF_MAX_S, usual.backoff_s)
    found = Retry(
        backoff_s=backoff_s,
        backoff_max_s=number(fields, "backoff_max_s", BACKOFF_MAX_S, max(usual.backoff_max_s, backoff_s)),
        jitter=number(fields, "jitter", 1.0, usual.jitter),
        only_on=_reasons(fields, "only_on"),
        stop_on=_reasons(fields, "stop_on"),
    )
    if found.backoff_max_s < found.backoff_s:
        wanted = f"at least backoff_s, {found.backoff_s:g}"
        fields.faults.add(
            fields.pointer("backoff_max_s"), f"expected {wanted}, found {found.backoff_max_s:g}"
        )
    for reason in sorted({*found.only_on} & {*found.stop_on}):
        fields.faults.add(fields.pointer("stop_on"), f"{shown(reason)} stands in only_on too")
    return found, whole(fields, "max_attempts", ATTEMPTS_MAX, attempts)


def _reasons(fields: Fields, key: str) -> tuple[str, ...]:
    found: dict[str, int] = {}
    for pointer, item in fields.items(key, count_max=REASONS_MAX):
        if not isinstance(item, str) or not _REASON.fullmatch(item):
            wanted = "a reason such as timeout or http_503"
            fields.faults.add(pointer, f"expected {wanted}, found {shown(item)}")
        elif item in found:
            fields.faults.add(pointer, f"{shown(item)} is already at index {found[item]}")
        else:
            found[item] = len(found)
    return tuple(found)


def timeouts(step: Fields, attempt_s: int) -> tuple[int, int | None]:
    """How long one attempt may run, by default `attempt_s`, and how long the step with all of them (None: as
    long as they take). No attempt lasts longer than the step.
    """
    given = step.get("timeout_s") is not None
    timeout_s = whole(step, "timeout_s", STEP_TIMEOUT_MAX_S, attempt_s)
    total_s = whole(step, "total_timeout_s", STEP_TOTAL_MAX_S, None)
    if total_s is None or total_s >= timeout_s:
        return timeout_s, total_s
    if given:
        message = f"expected at least timeout_s, {timeout_s}, found {total_s}"
        step.faults.add(step.pointer("total_timeout_s"), message)
    return total_s, total_s


def queue_timeout_s(step: Fields) -> int:
    """How long a step may wait for a worker."""
    return int(whole(step, "queue_timeout_s", QUEUE_TIMEOUT_MAX_S, QUEUE_TIMEOUT_S))


def priority(top: Fields) -> int:
    """0 low, 1 normal, 2 high."""
    value = top.get("priority")
    if value is None:
        return PRIORITIES["normal"]
    if not isinstance(value, str) or value not in PRIORITIES:
        message = f"unknown priority {shown(value)}; known: {listed(PRIORITIES)}"
        top.faults.add(top.pointer("priority"), message)
        return PRIORITIES["normal"]
    return PRIORITIES[value]


def limits(top: Fields) -> tuple[Limit, ...]:
    """The concurrency limits of a pipeline."""
    found: dict[str, Limit] = {}
    for pointer, item in top.items("limits", count_max=LIMITS_MAX):
        entry = Fields(item, pointer, ("key", "max", "holds_paused"), top.faults)
        key = entry.get("key")
        if not _is_key(key):
            wanted = f"pipeline, tenant or key:<text of 1 to {KEY_CHARS_MAX} characters>"
            top.faults.add(f"{pointer}.key", f"expected {wanted}, found {shown(key)}")
            continue
        if key in found:
            top.faults.add(f"{pointer}.key", f"limit {shown(key)} stands twice in the list")
        if entry.get("max") is None:
            top.faults.add(f"{pointer}.max", f"expected a whole number from 1 to {LIMIT_MAX}, found nothing")
        most = whole(entry, "max", LIMIT_MAX, 1)
        found[key] = Limit(key=key, max=most, holds_paused=flag(entry, "holds_paused"))
    return tuple(found.values())


def _is_key(key: Any) -> bool:
    if not isinstance(key, str) or not storable(key):
        return False
    text = key.removeprefix("key:")
    return key in ("pipeline", "tenant") or (text != key and 1 <= len(text) <= KEY_CHARS_MAX)
