"""What an expression gives over a context: null-safe, typed, bounded.

A path that leads nowhere is null. Null is equal to null alone, orders before and after nothing, counts as
false beside `and`, `or` and `not`, and goes through every function but `coalesce` unchanged.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from services.contracts.commands import Json
from services.language.expressions.lexer import number
from services.language.expressions.nodes import (
    Call,
    Comparison,
    Conjunction,
    Disjunction,
    Literal,
    Negation,
    Node,
    Read,
)
from services.language.paths import MISSING, ExpressionError, lookup
from services.language.values import Unfit, as_text, equal, kind, measured

RESULT_BYTES_MAX = 64 * 1024
COMPARED_MAX = 10_000
"""Values compared by one evaluation, whatever it compares: lists and objects count with all they hold."""

_ORDERINGS: Mapping[str, Callable[[Json, Json], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBER_TEXT = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{1,100})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)


def result(node: Node, context: Mapping[str, Json]) -> Json:
    """The value of a whole expression, at most RESULT_BYTES_MAX large; it may share parts of the context."""
    value = _Evaluation(context).value(node)
    try:
        measured(value, RESULT_BYTES_MAX)
    except Unfit as unfit:
        raise ExpressionError(f"the result does not fit: {unfit}", 1) from None
    return value


def truth(value: Json, at: int, where: str) -> bool:
    """true or false; null is false. Anything else is an error: it would hide a forgotten comparison."""
    if value is None or isinstance(value, bool):
        return bool(value)
    raise ExpressionError(f"expected true, false or null {where}, found {kind(value)}", at)


class _Evaluation:
    def __init__(self, context: Mapping[str, Json]) -> None:
        self._context = context
        self._compared = 0

    def value(self, node: Node) -> Json:
        match node:
            case Literal(value):
                return value
            case Read(path):
                found = lookup(self._context, path)
                return None if found is MISSING else found
            case Negation(part, at):
                return not truth(self.value(part), at, "after not")
            case Conjunction(parts, at):
                return all(truth(self.value(part), at, "beside and") for part in parts)
            case Disjunction(parts, at):
                return any(truth(self.value(part), at, "beside or") for part in parts)
            case Comparison():
                return self._comparison(node)
            case Call(name, arguments, at):
                return FUNCTIONS[name].call([self.value(one) for one in arguments], at)
        assert_never(node)

    def _comparison(self, node: Comparison) -> bool:
        left, right = self.value(node.left), self.value(node.right)
        match node.operator:
            case "==":
                return self._equal(left, right, node.at)
            case "!=":
                return not self._equal(left, right, node.at)
            case "in":
                return self._within(left, right, node.at)
            case "not in":
                return not self._within(left, right, node.at)
            case _:
                return _ordered(node.operator, left, right, node.at)

    def _within(self, left: Json, right: Json, at: int) -> bool:
        match right:
            case None:
                return False
            case list() | tuple():
                return any(self._equal(left, one, at) for one in right)
            case str() | Mapping() if isinstance(left, str):
                return left in right
            case str() | Mapping() if left is None:
                return False
            case _:
                wanted = "a value in a list, or text in a text or object"
                raise ExpressionError(f"expected {wanted}, found {kind(left)} in {kind(right)}", at)

    def _equal(self, left: Json, right: Json, at: int) -> bool:
        def counted(waiting: int) -> None:
            self._compared += 1
            if self._compared + waiting > COMPARED_MAX:
                raise ExpressionError(f"expected at most {COMPARED_MAX} values to compare, found more", at)

        return equal(left, right, counted)


def _ordered(symbol: str, left: Json, right: Json, at: int) -> bool:
    if left is None or right is None:
        return False
    kinds = {kind(left), kind(right)}
    if len(kinds) > 1 or not kinds <= {"a number", "text"}:
        found = f"{kind(left)} {symbol} {kind(right)}"
        raise ExpressionError(f"expected two numbers or two texts to order, found {found}", at)
    return _ORDERINGS[symbol](left, right)


@dataclass(frozen=True, slots=True)
class Function:
    """A function: least and most arguments, and what it does with their values; `at` is for its errors."""

    arguments: tuple[int, int]
    call: Callable[[list[Json], int], Json]


def _coalesce(values: list[Json], at: int) -> Json:
    return next((value for value in values if value is not None), None)


def _length(values: list[Json], at: int) -> Json:
    match values[0]:
        case None:
            return None
        case str() | list() | tuple() | Mapping() as value:
            return len(value)
        case value:
            raise ExpressionError(f"expected text, a list or an object in length, found {kind(value)}", at)


def _number(values: list[Json], at: int) -> Json:
    match values[0]:
        case bool():
            pass
        case None | int() | float() as value:
            return value
        case str() as text if _NUMBER_TEXT.fullmatch(text):
            return number(text, at)
    found = "text of another form" if isinstance(values[0], str) else kind(values[0])
    raise ExpressionError(f'expected a number or text such as "12.5" in number, found {found}', at)


def _string(values: list[Json], at: int) -> Json:
    if values[0] is None:
        return None
    try:
        measured(values[0], RESULT_BYTES_MAX)
    except Unfit as unfit:
        raise ExpressionError(f"the argument of string does not fit: {unfit}", at) from None
    return as_text(values[0])


FUNCTIONS: Mapping[str, Function] = {
    "coalesce": Function((1, 8), _coalesce),
    "length": Function((1, 1), _length),
    "number": Function((1, 1), _number),
    "string": Function((1, 1), _string),
}
