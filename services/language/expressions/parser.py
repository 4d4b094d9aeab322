"""Tokens to a tree, by recursive descent; docs/expressions.md has the grammar."""

from collections.abc import Callable

from services.language.expressions.evaluator import FUNCTIONS
from services.language.expressions.lexer import Kind, Token, tokens
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
from services.language.paths import ExpressionError

SOURCE_CHARS_MAX = 1000
DEPTH_MAX = 32
NODES_MAX = 200

_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})


def tree(text: str) -> Node:
    """The tree of a whole text; ExpressionError says what was expected and found, and where."""
    if len(text) > SOURCE_CHARS_MAX:
        message = f"expected at most {SOURCE_CHARS_MAX} characters, found {len(text)}"
        raise ExpressionError(message, SOURCE_CHARS_MAX + 1)
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._token = next(self._tokens)
        self._depth = 0
        self._nodes = 0

    def whole(self) -> Node:
        node = self._expression()
        if self._token.kind is not Kind.END:
            raise self._unexpected("an operator or the end")
        return node

    def _expression(self) -> Node:
        return self._nested(lambda: self._chain("or", self._conjunction, Disjunction))

    def _conjunction(self) -> Node:
        return self._chain("and", self._negation, Conjunction)

    def _chain(
        self, word: str, part: Callable[[], Node], joined: Callable[[tuple[Node, ...], int], Node]
    ) -> Node:
        first, at = part(), self._token.at
        parts = [first]
        while self._taken(word):
            parts.append(part())
        return self._counted(joined(tuple(parts), at)) if len(parts) > 1 else first

    def _negation(self) -> Node:
        at = self._token.at
        if self._taken("not"):
            return self._counted(Negation(self._nested(self._negation), at))
        return self._comparison()

    def _comparison(self) -> Node:
        left = self._operand()
        at, operator = self._token.at, self._operator()
        if not operator:
            return left
        node = self._counted(Comparison(operator, left, self._operand(), at))
        if self._token.text in _COMPARISONS:
            raise self._unexpected("and, or or the end (comparisons do not chain)")
        return node

    def _operator(self) -> str | None:
        if self._taken("not"):
            self._expect("in")
            return "not in"
        token = self._token
        if token.kind is not Kind.SYMBOL or token.text not in _COMPARISONS:
            return None
        self._advance()
        return token.text

    def _operand(self) -> Node:
        token = self._token
        if self._taken("("):
            node = self._expression()
            self._expect(")")
            return node
        match token.kind:
            case Kind.LITERAL:
                node = Literal(token.value)
            case Kind.PATH:
                node = Read(token.value)
            case Kind.NAME if token.text in FUNCTIONS:
                return self._call(token)
            case Kind.NAME:
                hint = f"a text stands in quotes, a path begins with $., functions are {', '.join(FUNCTIONS)}"
                raise self._unexpected("a value", f": {hint}")
            case _:
                raise self._unexpected("a value")
        self._advance()
        return self._counted(node)

    def _call(self, name: Token) -> Node:
        self._advance()
        self._expect("(")
        arguments = [self._expression()]
        while self._taken(","):
            arguments.append(self._expression())
        self._expect(")")
        least, most = FUNCTIONS[name.text].arguments
        if not least <= len(arguments) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise ExpressionError(
                f"expected {wanted} arguments of {name.text}, found {len(arguments)}", name.at
            )
        return self._counted(Call(name.text, tuple(arguments), name.at))

    def _nested(self, part: Callable[[], Node]) -> Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ExpressionError(
                f"expected at most {DEPTH_MAX} levels of nesting, found more", self._token.at
            )
        node = part()
        self._depth -= 1
        return node

    def _counted(self, node: Node) -> Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            message = f"expected at most {NODES_MAX} values and operators, found more"
            raise ExpressionError(message, self._token.at)
        return node

    def _taken(self, symbol: str) -> bool:
        taken = self._token.kind is Kind.SYMBOL and self._token.text == symbol
        if taken:
            self._advance()
        return taken

    def _expect(self, symbol: str) -> None:
        if not self._taken(symbol):
            raise self._unexpected(symbol)

    def _advance(self) -> None:
        self._token = next(self._tokens)

    def _unexpected(self, wanted: str, hint: str = "") -> ExpressionError:
        end = self._token.kind is Kind.END
        found = "the end" if end else f"`{self._token.text[:40]}`"
        return ExpressionError(f"expected {wanted}, found {found}{hint}", self._token.at)
