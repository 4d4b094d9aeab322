"""Steps as read, each by itself: what it does, its hooks, and which steps it names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.jobs.fields import Faults, Fields, clean, listed, shown
from services.jobs.pipeline import calls, chain, hooks, names, policies, services
from services.jobs.pipeline.chain import Edge, Node
from services.jobs.pipeline.hooks import Hook
from services.jobs.pipeline.kinds import KINDS
from services.jobs.pipeline.load import Loaded, Written
from services.jobs.pipeline.services import Services
from services.jobs.pipeline.size import Size
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


def read(loaded: Loaded, known: Services, faults: Faults) -> list[Draft]:
    """The steps of a body that have a name of their own; faults are noted."""
    taken: dict[str, Written] = {}
    kept = [written for written in loaded.steps if _is_new(written, taken, faults)]
    drafts = []
    for written in kept:
        fields = written.fields
        kind, work = _work(fields, known)
        found = tuple(hooks.read(fields))
        node = _node(written, found, faults)
        drafts.append(Draft(node.name, written.at, fields, kind, work, found, node))
    if not loaded.listed:
        return drafts
    nodes = chain.in_order([draft.node for draft in drafts])
    return [replace(draft, node=node) for draft, node in zip(drafts, nodes, strict=True)]


def _is_new(written: Written, taken: dict[str, Written], faults: Faults) -> bool:
    """Whether the step has a name, and none before it gives the same log file."""
    name = written.name
    if fault := names.fault_of(name):
        faults.add(written.name_at, fault)
    if not isinstance(name, str):
        return False
    key = names.collision_key(name)
    other = taken.setdefault(key, written)
    if other is written:
        return True
    same = "stands twice" if other.name == name else f"gives the same log file as {shown(other.name)}"
    faults.add(written.name_at, f"{shown(name)} {same}")
    return False


def _work(fields: Fields, known: Services) -> tuple[str, Work]:
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


def _acting(action: Any, fields: Fields, known: Services) -> tuple[str, Work]:
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


def _node(written: Written, found: tuple[Hook, ...], faults: Faults) -> Node:
    fields = written.fields
    following, others = hooks.parted(found)
    ways = [hook for hook in others if hook.step is not None and hook.on != "enter"]
    leaving = [hook for hook in ways if hook.on != "error"]
    always = next((hook for hook in leaving if hook.when is None), None)
    next_name = _text(fields, "next_step_name")
    if next_name and (other := always or next(iter(following), None)):
        message = f"expected none, for {clean(other.written)} on {other.on} says what follows"
        faults.add(fields.pointer("next_step_name"), f"{message}; found {shown(next_name)}")
    after = [(hook.step or "", hook.at) for hook in following]
    if next_name:
        after.append((next_name, fields.pointer("next_step_name")))
    terminal = policies.flag(fields, "is_terminal_step")
    return Node(
        name=written.name,
        at=written.at,
        next=tuple(Edge(to, at, certain=not leaving) for to, at in after),
        gotos=tuple(Edge(h.step or "", h.at, h.on != "error" and h.when is None) for h in ways),
        called=tuple(Edge(h.step or "", h.at, certain=False) for h in found if h.on == "enter" and h.step),
        previous=_text(fields, "prev_step_name"),
        terminal=terminal if isinstance(fields.get("is_terminal_step"), bool) else None,
        ends=terminal or next_name == "",
        leaves=bool(leaving),
        linked=bool(next_name),
    )


def _text(fields: Fields, key: str) -> str | None:
    value = fields.get(key)
    if value is None or isinstance(value, str):
        return value
    fields.faults.add(fields.pointer(key), f'expected the name of a step or "", found {shown(value)}')
    return None


def calls_of(
    draft: Draft, drafts: Mapping[str, Draft], known: Services, size: Size, faults: Faults
) -> dict[str, Work]:
    """The call of each hook that makes one, by the hook's pointer. Raises Refused when they are too large."""
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
            size.add(found[hook.at].parameters)
        elif call and not hook.written.startswith("std:"):
            faults.add(hook.at, call)
    return found


def _step_call(hook: Hook, drafts: Mapping[str, Draft]) -> Work | str:
    draft = drafts.get(hook.step or "")
    if draft is None:
        return ""  # an unknown name, which the chain has told
    wanted = "a step that calls an API (on enter its call is made, it is not gone to)"
    return draft.work if draft.kind == "API" else f"expected {wanted}, found one of type {draft.kind}"
