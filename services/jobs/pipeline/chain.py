"""The chain of steps: where it begins, whether it ends, and which step may run before which.

Steps follow one another by `next` (S3's next_step_name, S2's on-success, the order of a list) and by gotos.
What always follows a success must not come round again: that would never end. A loop needs a condition or an
error on its way.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from services.jobs.fields import Faults, listed, shown


@dataclass(frozen=True, slots=True)
class Edge:
    """One step names another at `at`. `certain`: it follows every success."""

    to: str
    at: str
    certain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A step of the chain. `previous` and `terminal` are None when the definition does not say.

    `ends`: it says that nothing follows. `leaves`: after a success it may go elsewhere. `linked`: `next` is
    written for both its ends, as S3 does. `placed`: the order of its list says what comes before or after it.
    """

    name: str
    at: str
    next: tuple[Edge, ...] = ()
    gotos: tuple[Edge, ...] = ()
    called: tuple[Edge, ...] = ()  # steps that `on-enter` names: they need not be in the chain
    previous: str | None = None
    terminal: bool | None = None
    ends: bool = False
    leaves: bool = False
    linked: bool = False
    placed: bool = False

    def pointer(self, key: str) -> str:
        """The path of one of the step's fields."""
        return f"{self.at}.{key}" if self.at else key


@dataclass(frozen=True, slots=True)
class Chain:
    """`order`: the steps that can run, the first one first. `earlier`: what may have run before each."""

    order: tuple[str, ...] = ()
    earlier: Mapping[str, frozenset[str]] = field(default_factory=dict)


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """The steps of a list: each leads to the one below it, unless one of the two says otherwise.

    A step says what follows it by next_step_name, is_terminal_step or a way that it always goes, and what
    precedes it by prev_step_name; next_step_name says it for both. A call says neither, nor does a way that
    depends on a condition or an error. Steps that are named to run together run as they are named, and the
    order leads no step back to one that led to it.
    """
    said = {node.name: [edge.to for edge in (*node.next, *_certain(node))] for node in nodes}
    linked = {edge.to for node in nodes if node.linked for edge in node.next}
    together = {edge.to for node in nodes if len(node.next) > 1 for edge in node.next}
    below_of = {
        node.name: below.name
        for node, below in pairwise(nodes)
        if not (said[node.name] or node.ends or node.name in together or below.name in linked)
        and below.previous in (None, node.name)
        and node.name not in _walked(below.name, said)
    }
    placed = {*below_of, *below_of.values()}
    return [_placed(node, below_of.get(node.name)) if node.name in placed else node for node in nodes]


def _placed(node: Node, below: str | None) -> Node:
    if below is None:
        return replace(node, placed=True)
    return replace(node, placed=True, next=(Edge(below, node.at, certain=not node.leaves),))


def of(nodes: Sequence[Node], faults: Faults, *, complete: bool = True) -> Chain:
    """The chain of these steps, names distinct; faults are noted.

    Where it is not `complete`, a step may be led to by what could not be read.
    """
    by_name = {node.name: node for node in nodes}
    _refuse_unknown(nodes, by_name, faults)
    _refuse_disagreement(nodes, by_name, faults)
    if not by_name:
        return Chain()
    edges = {
        node.name: [edge.to for edge in (*node.next, *node.gotos) if edge.to in by_name] for node in nodes
    }
    order = _walked(_first(nodes, edges), edges)
    only_called = {edge.to for node in nodes for edge in node.called} - {*order}
    for node in nodes:
        if complete and node.name not in order and node.name not in only_called:
            faults.add(node.at or "body", f"step {shown(node.name)} is unreachable: no step leads to it")
    _refuse_endless(by_name, order, faults)
    _refuse_terminals(nodes, faults)
    return Chain(tuple(order), _earlier(by_name, edges))


def _refuse_unknown(nodes: Sequence[Node], by_name: Mapping[str, Node], faults: Faults) -> None:
    for node in nodes:
        for edge in (*node.next, *node.gotos, *node.called):
            if edge.to not in by_name:
                faults.add(edge.at, f"unknown step {shown(edge.to)}; known: {listed(by_name)}")
        if node.previous and node.previous not in by_name:
            at = node.pointer("prev_step_name")
            faults.add(at, f"unknown step {shown(node.previous)}; known: {listed(by_name)}")


def _refuse_disagreement(nodes: Sequence[Node], by_name: Mapping[str, Node], faults: Faults) -> None:
    """S3 writes each link twice: in next_step_name of the one step and prev_step_name of the other."""
    before: dict[str, list[str]] = {name: [] for name in by_name}
    for node in nodes:
        for edge in node.next:
            before.get(edge.to, []).append(node.name)
    comes_from = {(edge.to, node.name) for node in nodes for edge in node.gotos}
    for node in nodes:
        known = before[node.name]
        if node.previous is None or (node.previous and node.previous not in by_name):
            continue
        if node.previous not in (known or [""]) and (node.name, node.previous) not in comes_from:
            wanted = " or ".join(map(shown, known)) + ", which names this step as its next" if known else '""'
            reason = "" if known else ": no step names this one as its next"
            faults.add(
                node.pointer("prev_step_name"), f"expected {wanted}, found {shown(node.previous)}{reason}"
            )


def _first(nodes: Sequence[Node], edges: Mapping[str, list[str]]) -> str:
    """The first step written that no other leads to: S2 may write what it calls before what calls it.

    Where each step is led to, a chain that others only go back to is entered at its begin.
    """
    called = {edge.to for node in nodes for edge in node.called} - {n.name for n in nodes if n.placed}
    led = {to for name, ends in edges.items() for to in ends if to != name}
    followed = {edge.to for node in nodes for edge in node.next if edge.to != node.name}
    for taken in (led | called, followed | called, called, frozenset[str]()):
        free = [node.name for node in nodes if node.name not in taken]
        if free:
            return max(free, key=lambda name: len(_walked(name, edges)))
    raise AssertionError("nodes is not empty")


def _walked(start: str, edges: Mapping[str, list[str]]) -> list[str]:
    """Every step that can be reached, each after one that leads to it."""
    seen = {start: None}
    pending = deque([start])
    while pending:
        for to in edges.get(pending.popleft(), ()):
            if to not in seen:
                seen[to] = None
                pending.append(to)
    return list(seen)


def _refuse_endless(by_name: Mapping[str, Node], order: Iterable[str], faults: Faults) -> None:
    """Each circle of certain edges, once, named by its first step in order."""
    done: set[str] = set()
    for start in order:
        path: list[str] = []
        stack = [(start, 0)]
        while stack:
            name, depth = stack.pop()
            del path[depth:]
            if name in path:
                circle = [*path[path.index(name) :], name]
                edge = next(edge for edge in _certain(by_name[path[-1]]) if edge.to == name)
                faults.add(edge.at, f"circular chain, it would never end: {' -> '.join(circle)}")
            elif name not in done:
                done.add(name)
                path.append(name)
                stack += [(edge.to, depth + 1) for edge in _certain(by_name[name]) if edge.to in by_name]


def _certain(node: Node) -> list[Edge]:
    return [edge for edge in (*node.next, *node.gotos) if edge.certain]


def _refuse_terminals(nodes: Sequence[Node], faults: Faults) -> None:
    gone_to = {edge.to for node in nodes for edge in node.gotos}
    ends = [node for node in nodes if node.terminal]
    for node in nodes:
        if node.terminal and node.next:
            at = node.next[0].at
            faults.add(at, f"expected nothing after a terminal step, found {shown(node.next[0].to)}")
        if node.terminal is False and not node.next and not any(edge.certain for edge in node.gotos):
            message = "expected true, for nothing follows this step, or a next_step_name, found false"
            faults.add(node.pointer("is_terminal_step"), message)
    for node in [node for node in ends if node.name not in gone_to][1:]:
        others = ", ".join(shown(other.name) for other in ends if other is not node)
        message = f"several terminal steps: expected one, found {shown(node.name)} beside {others}"
        faults.add(node.pointer("is_terminal_step"), message)
    if nodes and not ends and all(node.terminal is False and node.next for node in nodes):
        faults.add(nodes[-1].pointer("is_terminal_step"), "expected one terminal step, found none")


def _earlier(by_name: Mapping[str, Node], edges: Mapping[str, list[str]]) -> dict[str, frozenset[str]]:
    """The steps that may have run before each; of several that follow together, one comes after the other."""
    after = {name: {*ends} for name, ends in edges.items()}
    for node in by_name.values():
        for group in (node.next, node.gotos):
            known = [edge.to for edge in group if edge.to in by_name]
            led_to: set[str] = set()
            for former, name in pairwise(known):
                led_to.update(edges[former])
                after[former].add(name)
                after[name].update(led_to)
    reached = {name: {*_walked_from(after[name], after)} for name in by_name}
    return {name: frozenset(x for x in by_name if name in reached[x]) for name in by_name}


def _walked_from(starts: Iterable[str], after: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    pending = [*starts]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(after[name])
    return seen
