"""Steps as read, each by itself: what it does, its hooks, and which steps it names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.jobs.fields import Faults, Fields, clean, listed, shown
from services.jobs.pipeline import calls, hooks, names, policies, services
from services.jobs.pipeline.chain import Edge, Node
from services.jobs.pipeline.hooks import Hook
from services.jobs.pipeline.kinds import KINDS
from services.jobs.pipeline.load import Loaded, Written
from services.jobs.pipeline.services import Service
from services.jobs.pipeline.work import Work


@dataclass(frozen=True, slots=True)
class Draft:
    """A step as read, before anything is known of the others. `calls` belong to the hooks of that index."""

    name: str
    at: str
    fields: Fields
    kind: str
    work: Work
    hooks: tuple[Hook, ...]
    node: Node


def read(loaded: Loaded, known: Mapping[str, Service], faults: Faults) -> list[Draft]:
    """The steps of a body, names distinct; faults are noted."""
    drafts: dict[str, Draft] = {}
    taken: dict[str, str] = {}
    for index, written in enumerate(loaded.steps):
        if fault := names.fault_of(written.name):
            faults.add(written.name_at, fault)
        name = written.name if isinstance(written.name, str) else f"\0{index}"
        key = names.collision_key(name)
        if key in taken:
            reason = (
                "stands twice" if taken[key] == name else f"gives the same log file as {shown(taken[key])}"
            )
            faults.add(written.name_at, f"{shown(name)} {reason}; names differ by more than case")
            continue
        taken[key] = name
        follower = loaded.steps[index + 1] if loaded.in_order and index + 1 < len(loaded.steps) else None
        drafts[name] = _draft(name, written, follower, known, faults)
    return list(drafts.values())


def _draft(
    name: str, written: Written, follower: Written | None, known: Mapping[str, Service], faults: Faults
) -> Draft:
    fields = written.fields
    kind, work = _work(fields, known)
    found = tuple(hooks.read(fields))
    return Draft(name, written.at, fields, kind, work, found, _node(name, written, follower, found, faults))


def _work(fields: Fields, known: Mapping[str, Service]) -> tuple[str, Work]:
    """What the step does: its kind and parameters, or the action of a service."""
    action, type_ = fields.get("action"), fields.get("step_type")
    if action is not None:
        if type_ is not None:
            fields.faults.add(fields.pointer("action"), "expected one of step_type and action, found both")
        return _acting(action, fields, known)
    if not isinstance(type_, str) or type_ not in KINDS:
        message = f"unknown step type {shown(type_)}; known: {listed(KINDS)}"
        fields.faults.add(fields.pointer("step_type"), message)
        return "NOOP", Work({})
    return type_, KINDS[type_].read(fields.object("parameters", KINDS[type_].keys))


def _acting(action: Any, fields: Fields, known: Mapping[str, Service]) -> tuple[str, Work]:
    at = fields.pointer("action")
    if action == hooks.NO_OP:
        fields.object("parameters", ())
        return "NOOP", Work({})
    if not isinstance(action, str) or ":" not in action or action.startswith("std:"):
        fields.faults.add(at, f"expected Service:action or {hooks.NO_OP}, found {shown(action)}")
        return "NOOP", Work({})
    call = services.called(action, known)
    if isinstance(call, str):
        fields.faults.add(at, call)
        return "NOOP", Work({})
    return "API", services.with_own(call, fields.object("parameters", calls.OWN_KEYS))


def _node(
    name: str, written: Written, follower: Written | None, found: tuple[Hook, ...], faults: Faults
) -> Node:
    fields = written.fields
    following = hooks.followers(found)
    ways = [hook for hook in found if hook.step is not None and hook.on != "enter" and hook not in following]
    leaving = [hook for hook in ways if hook.on != "error"]
    always = next((hook for hook in leaving if hook.when is None), None)
    next_name = _text(fields, "next_step_name")
    if next_name and (other := always or next(iter(following), None)):
        message = f"expected none, for {clean(other.written)} on {other.on} says what follows"
        faults.add(fields.pointer("next_step_name"), f"{message}; found {shown(next_name)}")
    after = [(hook.step or "", hook.at) for hook in following]
    if next_name:
        after.append((next_name, fields.pointer("next_step_name")))
    if follower is not None and isinstance(follower.name, str):
        after.append((follower.name, written.at))
    terminal = fields.get("is_terminal_step")
    return Node(
        name=name,
        at=written.at,
        next=tuple(Edge(to, at, certain=not leaving) for to, at in after),
        gotos=tuple(Edge(h.step or "", h.at, h.on != "error" and h.when is None) for h in ways),
        called=tuple(Edge(h.step or "", h.at, certain=False) for h in found if h.on == "enter" and h.step),
        previous=_text(fields, "prev_step_name"),
        terminal=None if terminal is None else policies.flag(fields, "is_terminal_step"),
    )


def _text(fields: Fields, key: str) -> str | None:
    value = fields.get(key)
    if value is None or isinstance(value, str):
        return value
    fields.faults.add(fields.pointer(key), f'expected the name of a step or "", found {shown(value)}')
    return None


def calls_of(
    draft: Draft, drafts: Sequence[Draft], known: Mapping[str, Service], faults: Faults
) -> dict[str, Work]:
    """The call of each hook that makes one, by the hook's pointer."""
    found = {}
    for hook in draft.hooks:
        if not hook.calls:
            if hook.wait or hook.own is not None:
                faults.add(
                    hook.at, f"expected no wait and no parameters for {clean(hook.written)}: it calls nothing"
                )
            continue
        call = _step_call(hook, drafts) if hook.step is not None else services.called(hook.written, known)
        if isinstance(call, Work):
            found[hook.at] = call if hook.own is None else services.with_own(call, hook.own)
        elif call and not hook.written.startswith("std:"):
            faults.add(hook.at, call)
    return found


def _step_call(hook: Hook, drafts: Sequence[Draft]) -> Work | str:
    for draft in drafts:
        if draft.name == hook.step:
            wanted = "a step that calls an API (on enter its call is made, it is not gone to)"
            return draft.work if draft.kind == "API" else f"expected {wanted}, found one of type {draft.kind}"
    return ""  # an unknown name, which the chain has told
