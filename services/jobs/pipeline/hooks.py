"""Hooks of a step: what is called or gone to before and after its work (S2 2.9-2.13).

    on-enter: Logger:start
    on-exit:
      - 'std:goto(task2)': $.execution.error = null
      - {action: 'Logger:error', when: $.execution.error != null, wait: true}
    on-success: [task2, successLog]
    on-error: task3

An entry is an action, a one-key mapping of an action and its condition, or the long form. An action is
`Service:action`, `std:goto(step)`, `std:no-op`, or the name of a step: which is gone to, but called on enter.
Actions are cast and forgotten unless they say `wait: true`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from services.contracts.flow import HOOK_ATTEMPTS, HOOK_TIMEOUT_S, On
from services.jobs.fields import Fields, clean, shown
from services.jobs.pipeline import calls, policies
from services.language.expressions import expression_text

ENTRIES_MAX = 50
LONG_KEYS = ("action", "when", "wait", "timeout_s", "max_attempts", "parameters")
OCCASIONS: tuple[On, ...] = get_args(On)
NO_OP = "std:no-op"
HOOK_TIMEOUT_MAX_S = 3600
HOOK_ATTEMPTS_MAX = 20
_UNREAD = "true"
"""In the place of a condition that cannot be read: there is one, so its step is not left for certain."""
_GOTO = re.compile(r"std:goto\((.*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Hook:
    """One entry as written. `step` is the step that it goes to or, on enter, calls; `own` adds to a call."""

    on: On
    at: str
    written: str
    step: str | None
    when: str | None
    when_at: str
    wait: bool
    timeout_s: int
    max_attempts: int
    own: Fields | None

    @property
    def calls(self) -> bool:
        """Whether it is a call of a service's action, or of a step's on enter."""
        return self.written != NO_OP and (self.step is None or self.on == "enter")


def read(step: Fields) -> list[Hook]:
    """Every hook of a step, in the order written; faults are noted."""
    return [
        hook
        for on in OCCASIONS
        for at, when_at, entry in _entries(step, f"on-{on}")
        if (hook := _hook(on, at, when_at, entry, step)) is not None
    ]


def _entries(step: Fields, key: str) -> Iterator[tuple[str, str, Any]]:
    """Each entry with its pointer and that of its condition."""
    value, at = step.get(key), step.pointer(key)
    if value is None:
        return
    for pointer, entry in (
        step.items(key, count_max=ENTRIES_MAX) if isinstance(value, list) else [(at, value)]
    ):
        if isinstance(entry, Mapping) and "action" not in entry:
            if not 1 <= len(entry) <= ENTRIES_MAX:
                step.faults.add(pointer, f"expected an action, found {shown(entry)}")
            for action, when in entry.items():
                place = f"{pointer}.{clean(str(action))}"
                yield place, place, {"action": action, "when": when}
        else:
            yield pointer, f"{pointer}.when", entry


def _hook(on: On, at: str, when_at: str, entry: Any, step: Fields) -> Hook | None:
    fields = Fields(entry if isinstance(entry, Mapping) else {"action": entry}, at, LONG_KEYS, step.faults)
    written = fields.get("action")
    if not isinstance(written, str) or not written:
        wanted = "Service:action, std:goto(step), std:no-op or the name of a step"
        step.faults.add(at, f"expected {wanted}, found {shown(written)}")
        return None
    # a key that is no key of an entry may have been to say `when`
    spelt = not isinstance(entry, Mapping) or entry.keys() <= {*LONG_KEYS}
    when = _condition(fields, "when", when_at)
    return Hook(
        on=on,
        at=at,
        written=written,
        step=_target(on, at, written, step),
        when=when if when is not None or spelt else _UNREAD,
        when_at=when_at,
        wait=policies.flag(fields, "wait"),
        timeout_s=policies.whole(fields, "timeout_s", HOOK_TIMEOUT_MAX_S, HOOK_TIMEOUT_S),
        max_attempts=policies.whole(fields, "max_attempts", HOOK_ATTEMPTS_MAX, HOOK_ATTEMPTS),
        own=fields.object("parameters", calls.OWN_KEYS) if fields.get("parameters") is not None else None,
    )


def _target(on: On, at: str, written: str, step: Fields) -> str | None:
    if match := _GOTO.fullmatch(written):
        if on == "enter":
            step.faults.add(at, "expected a call or std:no-op on enter: no step is left before it has run")
        return match[1].strip()
    if written.startswith("std:") and written != NO_OP:
        step.faults.add(at, f"unknown action {shown(written)}; known: std:goto(step), std:no-op")
    return None if ":" in written else written


def _condition(fields: Fields, key: str, at: str) -> str | None:
    """A condition's text: an expression in any of its forms; null is none."""
    value = fields.get(key)
    if value is None:
        return None
    text = expression_text(value)
    if text is None and isinstance(value, str):
        text = value
    if text is None:
        wanted = "a condition such as $.execution.error = null"
        fields.faults.add(at, f"expected {wanted}, found {shown(value)}")
        return _UNREAD
    return text


def condition(step: Fields, key: str) -> str | None:
    """The condition under a key of a step (`fail_on`)."""
    return _condition(step, key, step.pointer(key))


def parted(found: Iterable[Hook]) -> tuple[list[Hook], list[Hook]]:
    """What simply follows a success, and everything else.

    Steps that `on-success` names follow as in S3's chain if none of them has a condition; otherwise each is
    gone to when its condition holds.
    """
    following: list[Hook] = []
    others: list[Hook] = []
    for hook in found:
        (following if hook.on == "success" and hook.step is not None else others).append(hook)
    plain = all(hook.when is None and hook.written == hook.step for hook in following)
    return (following, others) if plain else ([], [*found])


def condition_of(step: Fields, key: str) -> str | None:
    """The same without a word about its faults."""
    value = step.get(key)
    text = expression_text(value)
    return value if text is None and isinstance(value, str) else text
