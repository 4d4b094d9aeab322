"""Which status codes a route can give, read from the source of everything that it reaches."""

import ast
import functools
import inspect
import textwrap
import typing
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from services.api.keys import Role
from services.api.parts import Needs, Parts
from services.api.pool import DatabaseAway, Pool
from services.api.problems import KINDS, Problem
from services.jobs.refused import Refused

COLLABORATORS = typing.get_type_hints(Parts)
ANSWERS = frozenset({"reply", "Response", "Pieces", "EventStream"})
CRASH = 500
HEADER_READS = frozenset({"request.headers.get", "request.headers.getlist", "given.get"})
# what every HTTP request has, described by the body and the security scheme
PLAIN_HEADERS = frozenset(
    {"accept", "authorization", "content-encoding", "content-length", "content-type", "transfer-encoding"}
)


def possible(route: APIRoute) -> set[int]:
    """Every code that is not the route's plain success, which FastAPI itself writes down."""
    codes = {CRASH} | (_reached(route.endpoint) if isinstance(route.endpoint, FunctionType) else set())
    roles = []
    for dependant in _dependants(route.dependant):
        if isinstance(dependant.call, Needs):
            roles.append(dependant.call._role)
            codes |= _reached(typing.cast(FunctionType, Needs.__call__)) - {KINDS["forbidden"][0]}
            codes.add(KINDS["invalid-request"][0])  # of services/api/targets.py, whatever the route reads
        elif isinstance(dependant.call, FunctionType):
            codes |= _reached(dependant.call)
        if dependant.query_params:
            codes.add(KINDS["invalid-request"][0])
    if any(role is not Role.VIEWER for role in roles):
        codes.add(KINDS["forbidden"][0])  # every key covers the role of a viewer
    return codes


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _dependants(inner)


def headers_read(route: APIRoute) -> set[str]:
    """The request headers that the code asks for by name, in lower case."""
    assert isinstance(route.endpoint, FunctionType)
    found = {param.alias.lower() for param in route.dependant.header_params}
    for function in _closure(route.endpoint):
        if not isinstance(function, FunctionType):
            continue
        for node in ast.walk(_tree(function)):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in HEADER_READS and node.args):
                continue
            name = node.args[0]
            if isinstance(name, ast.Constant):
                found.add(str(name.value).lower())
            else:
                found.add(str(function.__globals__[ast.unparse(name)]).lower())
    return found - PLAIN_HEADERS


def _reached(start: FunctionType) -> set[int]:
    codes: set[int] = set()
    for found in _closure(start):
        if found is Refused:
            codes.add(KINDS["invalid-request"][0])
        elif found in (Pool, DatabaseAway):
            codes.add(KINDS["unavailable"][0])
        elif isinstance(found, FunctionType):
            codes |= _own(found)
    return codes


def _closure(start: FunctionType) -> set[Any]:
    """The functions and classes that a call may lead to."""
    seen: set[Any] = set()
    todo: list[Any] = [start]
    while todo:
        found = todo.pop()
        if found in seen:
            continue
        seen.add(found)
        if isinstance(found, FunctionType):
            todo += _mentioned(found)
        elif found not in (Pool, Refused, DatabaseAway):
            todo += [member for member in vars(found).values() if isinstance(member, FunctionType)]
    return seen


@functools.cache
def _tree(function: FunctionType) -> ast.Module:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except OSError:  # made by dataclass
        return ast.parse("def generated(): pass")


def _own(function: FunctionType) -> set[int]:
    """The codes that stand in the function itself."""
    codes: set[int] = set()
    for node in ast.walk(_tree(function)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        first = node.args[0] if node.args else None
        if name == Problem.__name__ and isinstance(first, ast.Constant):
            codes.add(KINDS[str(first.value)][0])
        if name in ANSWERS:
            given = [*node.args[1:2], *(k.value for k in node.keywords if k.arg in ("status", "status_code"))]
            inner = [part for value in given for part in ast.walk(value) if isinstance(part, ast.Constant)]
            codes |= {part.value for part in inner if isinstance(part.value, int) and part.value >= 200}
    return codes


def _mentioned(function: FunctionType) -> Iterator[Any]:
    """What of ours the function names: functions, classes, and the collaborators behind `parts.<name>`."""
    decorated = _tree(function).body[0]
    body = decorated.body if isinstance(decorated, ast.FunctionDef | ast.AsyncFunctionDef) else []
    for node in (inner for statement in body for inner in ast.walk(statement)):
        if not isinstance(node, ast.Name | ast.Attribute):
            continue
        path = ast.unparse(node).split(".")
        holds = len(path) > 1 and (path[0] == "self" or "parts" in path[0])
        found: Any = COLLABORATORS.get(path[1].lstrip("_")) if holds else None
        if found is None:
            found = function.__globals__.get(path[0])
            for name in path[1:]:
                found = getattr(found, name, None)
        ours = getattr(found, "__module__", None) or ""
        if (inspect.isfunction(found) or inspect.isclass(found)) and (
            ours.startswith("services.api") or found is Refused
        ):
            yield found
        elif inspect.isfunction(found) and ours.startswith("services.jobs"):
            yield Refused
