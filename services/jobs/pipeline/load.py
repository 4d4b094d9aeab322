"""The forms in which a pipeline may be written, read as one.

S3 writes a list of steps, or one step alone, or `{"steps": [...]}`; a step has `step_name`, `step_type`,
`next_step_name`, `prev_step_name`, `parameters`, `is_terminal_step`. S2 writes `Workbook: {tasks: ...}` or
`Workflow: {tasks: ...}`, where a task's key is its name and `action` says what it does, and `Service: ...`.
Either form may use the keys of the other; pointers name what stands in the text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from services.jobs.fields import Faults, Fields, clean, shown
from services.jobs.pipeline.hints import HINTS, meant

BYTES_MAX = 64 * 1024
STEPS_MAX = 100
SERVICES_MAX = 50

HOOK_KEYS = ("on-enter", "on-exit", "on-success", "on-error")
CHAIN_KEYS = ("next_step_name", "prev_step_name", "is_terminal_step")
POLICY_KEYS = (
    *("retry", "timeout_s", "total_timeout_s", "queue_timeout_s"),
    *("wait_before_s", "wait_after_s", "pause_before", "fail_on"),
)
STEP_KEYS = ("step_type", "action", "parameters", *CHAIN_KEYS, *HOOK_KEYS, *POLICY_KEYS, "description")
BOOKS = ("Workbook", "Workflow")
SERVICES = ("services", "Service")
PINNED = "datasets"
BODY_KEYS = (
    *("name", "description", "form", *SERVICES, "steps", *BOOKS),
    *("limits", "priority", "timeout_s", "max_step_runs", PINNED),
)


@dataclass(frozen=True, slots=True)
class Written:
    """One step as written. `at` is its pointer, `name_at` that of its name; the name is not checked yet."""

    name: Any
    at: str
    name_at: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class Loaded:
    """A body taken apart. `services` are (name, pointer, value). `listed`: the steps have an order.

    `services_unread`, `ways_unread`: a key that was meant to hold services, or to lead to another step,
    has a name that is unknown here. What it should have held is then no fault of its own.
    """

    top: Fields
    steps: tuple[Written, ...]
    services: tuple[tuple[str, str, Any], ...]
    listed: bool
    services_unread: bool = False

    @property
    def ways_unread(self) -> bool:
        """Whether a step has a misspelt hook or link."""
        ways = (*CHAIN_KEYS, *HOOK_KEYS)
        return any(meant(key, STEP_KEYS) in ways for step in self.steps for key in step.fields.unknown)


def load(body: Any, faults: Faults) -> Loaded:
    """The parts of a body, each with its pointer. A body without steps has none: services may come first."""
    _refuse_size(body, faults)
    if isinstance(body, list):
        listed_steps = _listed({"steps": body}, "steps", "", faults)
        return Loaded(Fields({}, "", BODY_KEYS, faults), listed_steps, (), listed=True)
    if isinstance(body, Mapping) and "step_name" in body:
        alone = _step(body, "", faults)
        return Loaded(Fields({}, "", BODY_KEYS, faults), (alone,), (), listed=False)
    top = Fields(body, "", BODY_KEYS, faults, HINTS)
    given = [key for key in ("steps", *BOOKS) if top.get(key) is not None]
    steps: tuple[Written, ...] = ()
    if len(given) > 1:
        faults.add(given[1], f"expected one of steps, Workbook and Workflow, found {' and '.join(given)}")
    elif given == ["steps"]:
        steps = _listed(body, "steps", "steps", faults)
    elif given:
        steps = _tasks(top.object(given[0], ("tasks",)))
    before = len(faults)
    found = _services(top)
    unread = len(faults) > before or any(meant(key, BODY_KEYS) in SERVICES for key in top.unknown)
    return Loaded(top, steps, found, listed=given == ["steps"], services_unread=unread)


def as_object(body: Any) -> dict[str, Any]:
    """The body in the form that has room for services: a list or a step alone becomes `{"steps": [...]}`."""
    if isinstance(body, list):
        return {"steps": body}
    if isinstance(body, Mapping) and "step_name" in body:
        return {"steps": [dict(body)]}
    return mapping(body)


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is an object, else an empty one: what is wrong with it the check says."""
    return dict(value) if isinstance(value, Mapping) else {}


def _refuse_size(body: Any, faults: Faults) -> None:
    own = {key: body[key] for key in body if key != PINNED} if isinstance(body, Mapping) else body
    try:
        size = len(msgspec.json.encode(own))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        faults.add("body", f"expected JSON, found what cannot be written as such: {clean(str(error))}")
        faults.raise_if_any()
    else:
        if size > BYTES_MAX:
            faults.add("body", f"expected at most {BYTES_MAX} bytes of JSON, found {size}")
            faults.raise_if_any()  # what follows would take time in proportion


def _listed(body: Mapping[str, Any], key: str, at: str, faults: Faults) -> tuple[Written, ...]:
    holder = Fields(body, "", tuple(body), faults)
    found = []
    for index, (_, item) in enumerate(holder.items(key, count_max=STEPS_MAX)):
        found.append(_step(item, f"{at}[{index}]", faults))
    return tuple(found)


def _step(item: Any, at: str, faults: Faults) -> Written:
    fields = Fields(item, at, ("step_name", *STEP_KEYS), faults, HINTS)
    return Written(fields.get("step_name"), at, fields.pointer("step_name"), fields)


def _tasks(book: Fields) -> tuple[Written, ...]:
    tasks, at = book.get("tasks"), book.pointer("tasks")
    if not isinstance(tasks, Mapping) or not 1 <= len(tasks) <= STEPS_MAX:
        found = f"{len(tasks)} entries" if isinstance(tasks, Mapping) else shown(tasks)
        book.faults.add(at, f"expected an object of 1 to {STEPS_MAX} tasks, found {found}")
        return ()
    written = []
    for name, task in tasks.items():
        pointer = f"{at}.{clean(str(name))}"
        fields = Fields({} if task is None else task, pointer, STEP_KEYS, book.faults, HINTS)
        written.append(Written(name, pointer, pointer, fields))
    return tuple(written)


def _services(top: Fields) -> tuple[tuple[str, str, Any], ...]:
    found: list[tuple[str, str, Any]] = []
    for key in SERVICES:
        services = top.get(key)
        if services is None:
            continue
        if not isinstance(services, Mapping) or len(services) > SERVICES_MAX:
            wanted = f"an object of at most {SERVICES_MAX} services"
            top.faults.add(key, f"expected {wanted}, found {shown(services)}")
            continue
        found += ((str(name), f"{key}.{clean(str(name))}", value) for name, value in services.items())
    return tuple(found)
