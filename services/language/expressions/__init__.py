"""Expressions of hooks, conditions and TRANSFORM steps, such as `$.execution.error != null`.

No eval, every size bounded.
 docs/expressions.md has the grammar, the tables of operators and functions, and the limits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from services.contracts.commands import Json
from services.language.expressions import evaluator, parser
from services.language.expressions.nodes import Node, paths_of
from services.language.paths import ExpressionError, Path

__all__ = ["Expression", "ExpressionError", "expression_text", "holds", "parse"]


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that parsed; make one by `parse`."""

    text: str
    root: Node

    def evaluate(self, context: Mapping[str, Json]) -> Json:
        """Its value over a context; ExpressionError, without any value in its message, when it has none.

        The result may share lists and objects with the context: treat both as read-only.
        """
        return evaluator.result(self.root, context)

    def paths(self) -> frozenset[Path]:
        """Every path that it may read, without the `$`: `("steps", "fetch", "result", 0)`."""
        return paths_of(self.root)


@lru_cache(maxsize=512)
def parse(text: str) -> Expression:
    """Read an expression; ExpressionError names what was expected, what was found and the column."""
    return Expression(text, parser.tree(text))


def holds(value: Json) -> bool:
    """Whether a condition whose value this is holds: true does, false and null do not.

    ExpressionError for anything else: a text or number in a condition is a comparison somebody forgot.
    """
    return evaluator.truth(value, 1, "in a condition")


def expression_text(value: Json) -> str | None:
    """The expression that a value of a definition stands for, or None when it is an ordinary value.

    Three forms: a text that begins with `$.`; the one-key mapping that YAML makes of `{$.x}`; and `$(...)`
    around an expression that begins otherwise, `$(length($.steps.list.result))`.
    """
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, inner),) = value.items()
        return key if inner is None and isinstance(key, str) and key.startswith("$.") else None
    if not isinstance(value, str):
        return None
    if value.startswith("$(") and value.endswith(")"):
        return value[2:-1]
    return value if value.startswith("$.") else None
