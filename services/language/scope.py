"""The context that definitions read, and which names a definition may use in it.

    $.execution.id, .task (the current step's name), .error (the latest {step, reason, message}, or null)
    $.request.name, .tag, .created_by
    $.steps.<name>.result...  and  $.steps.<name>.status
    $.parameters.<name>       and, shorter, $.<name>: a value of the request
    ${secrets.<name>}         a secret value of the request; placeholders of headers and data only

An expression never sees a secret: what it computes goes into events.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from services.contracts.commands import Json
from services.contracts.errors import FieldError
from services.language import expressions
from services.language.paths import ExpressionError, Path, written

EXECUTION = ("id", "task", "error")
REQUEST = ("name", "tag", "created_by")
STEP = ("result", "status")
SECRETS = "secrets"
ROOTS = frozenset({"execution", "parameters", "request", "steps"})
RESERVED = ROOTS | {SECRETS}
"""Names that no value of a request may have."""

_LISTED_MAX = 20


@dataclass(frozen=True, slots=True)
class Known:
    """What a part of a definition may refer to: values of the request, earlier steps, secret values."""

    parameters: frozenset[str] = frozenset()
    steps: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()


def context(
    parameters: Mapping[str, Json],
    steps: Mapping[str, Json],
    execution: Mapping[str, Json],
    request: Mapping[str, Json],
) -> dict[str, Json]:
    """The context of evaluation; a value of the request cannot stand in the place of a root or of secrets.

    Whoever fills placeholders and has secrets open adds them as `secrets`.
    """
    short = {name: value for name, value in parameters.items() if name not in RESERVED}
    roots = {"parameters": parameters, "steps": steps, "execution": execution, "request": request}
    return {**short, **roots}


def fault(path: Path, known: Known) -> str | None:
    """Why a definition may not read this path, or None. What lies within a result is not checked here."""
    root, rest = path[0], path[1:]
    match root:
        case "steps":
            return _step_fault(rest, known)
        case "execution":
            deep = len(rest) > 1 and rest[0] != "error"
            return _member_fault("execution", rest[:1], EXECUTION) or (_deeper(path[:2]) if deep else None)
        case "request":
            return _member_fault("request", rest[:1], REQUEST) or (_deeper(path[:2]) if rest[1:] else None)
        case "parameters":
            return _member_fault("parameters", rest[:1], known.parameters)
        case "secrets":
            return _member_fault("secrets", rest[:1], known.secrets) or (
                _deeper(path[:2]) if rest[1:] else None
            )
        case _ if root in known.parameters:
            return None
        case _:
            return f"unknown name {written(path[:1])}; known: {_listed({*known.parameters, *ROOTS})}"


def _step_fault(rest: Path, known: Known) -> str | None:
    fault = _member_fault("steps", rest[:1], known.steps, what="earlier step")
    if fault:
        return fault
    at = written(("steps", *rest[:1]))
    return _member_fault(at, rest[1:2], STEP) or (
        _deeper(("steps", *rest[:2])) if rest[1] == "status" and rest[2:] else None
    )


def _member_fault(of: str, member: Path, known: Collection[str], what: str = "name") -> str | None:
    if not member:
        return f"expected {of}.<name>, found {of} alone; known: {_listed(known)}"
    if member[0] in known:
        return None
    return f"unknown {what} {written((of, *member))}; known: {_listed(known)}"


def _deeper(path: Path) -> str:
    return f"expected {written(path)} alone, found more after it"


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)[:_LISTED_MAX] or ["none"]
    return ", ".join([*shown, "..."] if len(names) > _LISTED_MAX else shown)


def check_expression(text: str, known: Known, pointer: str) -> list[FieldError]:
    """Every fault of an expression of a definition; `pointer` is where it stands."""
    try:
        paths = expressions.parse(text).paths()
    except ExpressionError as error:
        return [FieldError(pointer, str(error))]
    return [
        FieldError(pointer, message)
        for path in sorted(paths, key=written)
        if (message := read_fault(path, known))
    ]


def read_fault(path: Path, known: Known) -> str | None:
    """Why an expression may not read this path, or None."""
    if path[0] == SECRETS:
        return "expressions cannot read secrets; use ${secrets.<name>} in headers or data"
    return fault(path, known)
