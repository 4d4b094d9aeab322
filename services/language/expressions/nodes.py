"""What an expression consists of. `at` is the column that an error of evaluation names."""

from dataclasses import dataclass

from services.contracts.commands import Json
from services.language.paths import Path


@dataclass(frozen=True, slots=True)
class Literal:
    """null, true, false, a number or a text."""

    value: Json


@dataclass(frozen=True, slots=True)
class Read:
    """The value at a path of the context."""

    path: Path


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the fixed table, with as many arguments as it takes."""

    function: str
    arguments: tuple["Node", ...]
    at: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two operands and `==`, `!=`, `<`, `<=`, `>`, `>=`, `in` or `not in`."""

    operator: str
    left: "Node"
    right: "Node"
    at: int


@dataclass(frozen=True, slots=True)
class Negation:
    """`not`."""

    part: "Node"
    at: int


@dataclass(frozen=True, slots=True)
class Conjunction:
    """Two or more parts joined by `and`: flat, so that a long chain is not deep."""

    parts: tuple["Node", ...]
    at: int


@dataclass(frozen=True, slots=True)
class Disjunction:
    """Two or more parts joined by `or`."""

    parts: tuple["Node", ...]
    at: int


Node = Literal | Read | Call | Comparison | Negation | Conjunction | Disjunction


def paths_of(node: Node) -> frozenset[Path]:
    """Every path that the expression may read."""
    match node:
        case Literal():
            return frozenset()
        case Read(path):
            return frozenset({path})
        case Negation(part):
            return paths_of(part)
        case Comparison(left=left, right=right):
            return paths_of(left) | paths_of(right)
        case Call(arguments=parts) | Conjunction(parts=parts) | Disjunction(parts=parts):
            return frozenset().union(*map(paths_of, parts))
