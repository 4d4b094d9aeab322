"""Expressions beyond the examples of docs/expressions.md: bounds, null, equality, paths, S2's own forms."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.language import paths, scope
from services.language.expressions import ExpressionError, expression_text, holds, parse

INEXACT = (
    "expected a number that a 64-bit float keeps exactly (up to 17 digits), found another;"
    " use text where text will do"
)
TOKEN = "a path ($.), a text in quotes, a number or an operator"
HINT = "a text stands in quotes, a path begins with $., functions are coalesce, length, number, string"
KNOWN = scope.Known(parameters=frozenset({"LoggerURL", "limit"}), steps=frozenset({"fetch", "Make API Call"}))


def value(text: str, **context: Any) -> Any:
    return parse(text).evaluate(context)


def refusal(text: str, **context: Any) -> str:
    with pytest.raises(ExpressionError) as caught:
        value(text, **context)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a value, found the end"),
        ("$", "column 2: expected . and a name after $, found the end"),
        ("$[0]", "column 2: expected . and a name after $, found `[`"),
        ("$.a b", "column 5: expected an operator or the end, found `b`"),
        ("$.a.0", "column 5: expected a name (a letter or _, then letters, digits, _ and -), found `0`"),
        ("$.a[01]", "column 5: expected an index from 0 to 9999999 or a name in quotes after [, found `0`"),
        (
            "$.a[12345678]",
            "column 5: expected an index from 0 to 9999999 or a name in quotes after [, found `1`",
        ),
        ("$.a['b'", "column 8: expected ], found the end"),
        (r"'a\q'", r"column 3: expected one of \\ \' \" \n \r \t, found \ and `q`"),
        ("(1", "column 3: expected ), found the end"),
        ("1)", "column 2: expected an operator or the end, found `)`"),
        ("1 not 2", "column 7: expected in, found `2`"),
        ("and", "column 1: expected a value, found `and`"),
        ("length", "column 7: expected (, found the end"),
        ("length()", "column 8: expected a value, found `)`"),
        ("coalesce(" + "1," * 8 + "1)", "column 1: expected 1 to 8 arguments of coalesce, found 9"),
        ("1e999", "column 1: expected a number up to 1.8e308, found a larger one"),
        ("$.a < 1231231231231234123.5", f"column 7: {INEXACT}"),
        ("0.1000000000000000055", f"column 1: {INEXACT}"),
        ("1e-400", f"column 1: {INEXACT}"),
        (
            "1 \x00",
            f"column 3: expected {TOKEN}, found the character U+0000",
        ),
        ("__import__('os')", f"column 1: expected a value, found `__import__`: {HINT}"),
        ("'" + "a" * 1000, "column 1001: expected at most 1000 characters, found 1001"),
        ("(" * 40, "column 33: expected at most 32 levels of nesting, found more"),
        ("not " * 40, "column 129: expected at most 32 levels of nesting, found more"),
        ("1 or " * 199 + "1", "column 997: expected at most 200 values and operators, found more"),
        ("$.a" + ".b" * 32, "column 66: expected at most 32 names in a path, found more"),
        ("$." + "a" * 257, "column 3: expected names of at most 256 characters, found a longer one"),
        (f"$.a['{'b' * 257}']", "column 5: expected names of at most 256 characters, found a longer one"),
    ],
)
def test_a_text_that_is_none_is_refused_with_its_column(text: str, message: str) -> None:
    assert refusal(text) == message


def test_position_is_given_apart() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("1 +")
    assert caught.value.position == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null = null", True),
        ("null = false", False),
        ("null < 1 or null >= 1 or 1 > null", False),
        ("1 in null", False),
        ("null in 'null'", False),
        ("1 not in null", True),
        ("true = 1 or false = 0 or '1' = 1", False),
        ("'b' > 'a' and 2 > -1 and 1.5 < 2", True),
        ("$.list = $.same and $.object = $.turned", True),
        ("$.list = $.other or $.list = $.object", False),
        ("true in $.list", False),
        ("$.object in $.objects", True),
        ("'k' in $.object and 'z' not in $.object", True),
        ("false and $.list or true", True),
        ("true or $.list", True),
        ("not null and not false", True),
        ("not not true", True),
        ("not 1 = 2", True),
        ("1 = 2 or 1 = 1 and 2 = 3", False),
        ("length('') = 0 and length(null) = null and length($.object) = 1", True),
        ("string(1.0) = '1.0' and string(true) = 'true' and string('x') = 'x' and string(null) = null", True),
        ("0.1 = 0.10 and 1e25 > 1 and 1231231231231234123 != 1231231231231234124", True),
        ("number('-1e2') = -100 and number(5) = 5 and number(null) = null", True),
        ("coalesce(null, false, true)", False),
        ("coalesce(null, null)", None),
        (r"'\'\\\"' = $.quotes", True),
        ("$.a-b", "hyphen"),
        ("$.list.length", None),
        ("$.object[0]", None),
        ("$.list[0].deep.er", None),
        ("\n$.list[0]\t=\r\n1 ", True),
    ],
)
def test_values(text: str, expected: Any) -> None:
    context: dict[str, Any] = {
        "list": [1, [2.0]],
        "same": [1.0, [2]],
        "other": [1, [3]],
        "object": {"k": None},
        "turned": {"k": None},
        "objects": [{}, {"k": None}],
        "quotes": "'\\\"",
        "a-b": "hyphen",
    }
    assert parse(text).evaluate(context) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("true < false", "expected two numbers or two texts to order, found a boolean < a boolean"),
        ("$.x < 1", "expected two numbers or two texts to order, found a list < a number"),
        ("not $.x", "expected true, false or null after not, found a list"),
        ("false or 'x'", "expected true, false or null beside or, found text"),
        ("1 in 'x'", "expected a value in a list, or text in a text or object, found a number in text"),
        ("length(true)", "expected text, a list or an object in length, found a boolean"),
        ("number(true)", 'expected a number or text such as "12.5" in number, found a boolean'),
        ("number('1e999')", "expected a number up to 1.8e308, found a larger one"),
        ("number('1231231231231234123.5')", INEXACT),
        ("$.big", "the result does not fit: expected at most 65536 bytes, found more"),
        ("string($.big)", "the argument of string does not fit: expected at most 65536 bytes, found more"),
        ("$.long = $.long", "expected at most 10000 values to compare, found more"),
        ("1 in $.long", "expected at most 10000 values to compare, found more"),
        (
            "$.surrogate",
            "the result does not fit: expected text that UTF-8 can hold, found a lone surrogate",
        ),
        ("$.nan", "the result does not fit: expected a finite number, found another"),
        ("$.set", "the result does not fit: expected JSON, found a set, which JSON does not know"),
    ],
)
def test_what_has_no_value_is_refused_without_showing_it(text: str, message: str) -> None:
    context = {
        "x": ["canary"],
        "big": "canary" * 20_000,
        "long": [0] * 10_001,
        "surrogate": "\ud800",
        "nan": float("nan"),
        "set": {1},
    }
    error = refusal(text, **context)
    assert error.partition(": ")[2] == message
    assert "canary" not in error


def deep(levels: int) -> Any:
    nested: Any = 1
    for _ in range(levels):
        nested = [nested]
    return nested


def test_deeply_nested_contexts_are_compared_and_not_returned() -> None:
    context = {"a": deep(5000), "b": deep(5000)}
    assert parse("$.a = $.b").evaluate(context) is True
    message = "the result does not fit: expected at most 64 levels of lists and objects, found more"
    assert refusal("$.a", **context) == f"column 1: {message}"


@pytest.mark.parametrize(("given", "expected"), [(True, True), (False, False), (None, False)])
def test_a_condition_holds(given: Any, expected: bool) -> None:
    assert holds(given) is expected


@pytest.mark.parametrize(
    ("given", "found"), [(1, "a number"), ("true", "text"), ([], "a list"), ({}, "an object")]
)
def test_a_condition_is_no_other_value(given: Any, found: str) -> None:
    with pytest.raises(ExpressionError, match=f"expected true, false or null in a condition, found {found}"):
        holds(given)


def test_paths_are_all_that_may_be_read() -> None:
    text = "not $.a and ($.b.c[0] = 1 or length($.d['x y']) > 2) and true or $.a in coalesce($.e, 1)"
    assert parse(text).paths() == {("a",), ("b", "c", 0), ("d", "x y"), ("e",)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("$.x", "$.x"),
        ({"$.LoggerURL": None}, "$.LoggerURL"),
        ("$(1 = 1)", "1 = 1"),
        ("$$.x", None),
        ("x $.x", None),
        ("$", None),
        ("${x}", None),
        ({"$.x": 1}, None),
        ({"x": None}, None),
        ({"$.x": None, "$.y": None}, None),
        ({1: None}, None),
        (7, None),
        (None, None),
    ],
)
def test_the_forms_of_an_expression_in_a_definition(given: Any, expected: str | None) -> None:
    assert expression_text(given) == expected


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("$.execution.id = $.LoggerURL and $.parameters.limit > $.limit", []),
        ("$.execution.error.reason = $.request.tag", []),
        ("$.steps['Make API Call'].result.anything[3].goes = $.steps.fetch.status", []),
        ("$.steps.other.result", ["unknown earlier step steps.other; known: Make API Call, fetch"]),
        ("$.steps.fetch", ["expected steps.fetch.<name>, found steps.fetch alone; known: result, status"]),
        ("$.steps.fetch.output", ["unknown name steps.fetch.output; known: result, status"]),
        ("$.steps.fetch.status.x", ["expected steps.fetch.status alone, found more after it"]),
        ("$.execution.id.x", ["expected execution.id alone, found more after it"]),
        ("$.execution[0]", ["unknown name execution[0]; known: error, id, task"]),
        ("$.request.tag.x", ["expected request.tag alone, found more after it"]),
        ("$.parameters.other", ["unknown name parameters.other; known: LoggerURL, limit"]),
        (
            "$.b or $.a",
            [
                f"unknown name {name}; known: LoggerURL, execution, limit, parameters, request, steps"
                for name in "ab"
            ],
        ),
        ("$.a >", ["column 6: expected a value, found the end"]),
    ],
)
def test_names_are_checked_when_a_definition_is_stored(text: str, faults: list[str]) -> None:
    assert [error.message for error in scope.check_expression(text, KNOWN, "on-exit[0]")] == faults


def test_a_value_of_a_request_cannot_stand_for_a_root() -> None:
    context = scope.context({"steps": 1, "secrets": 2, "a": 3}, {"s": {}}, {"id": "x"}, {"name": "n"})
    assert (context["steps"], context["a"], context["parameters"]["a"]) == ({"s": {}}, 3, 3)
    assert "secrets" not in context


# ---------------------------------------------------------------- properties

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
CONTEXTS = st.fixed_dictionaries({"a": JSON, "b": JSON, "c": JSON})
WORDS = [
    *"()[].,$=<>-'\"\\ 09a",
    "$.a",
    "$.b",
    "$.c",
    "'a'",
    "null",
    "1.5",
    " and ",
    " or ",
    " not ",
    " in ",
    "==",
]
TEXTS = st.text() | st.lists(st.sampled_from([*WORDS, "length(", "coalesce(", "string(", "number("])).map(
    "".join
)


@st.composite
def sound(draw: st.DrawFn, depth: int = 3) -> str:
    """An expression that parses, with operands of any type."""
    if depth == 0 or draw(st.booleans()):
        return draw(
            st.sampled_from(
                ["$.a", "$.b.x", "$.c[0]", "$.c['k']", "null", "true", "false", "0", "-1.5", "'a'", '""']
            )
        )
    inner = sound(depth - 1)
    operator = draw(st.sampled_from(["=", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]))
    return draw(
        st.sampled_from(
            [
                "not ({0})",
                "({0}) {2} ({1})",
                "length({0})",
                "string({0})",
                "number({0})",
                "coalesce({0}, {1})",
            ]
        )
    ).format(draw(inner), draw(inner), operator)


def failure(text: str, context: dict[str, Any]) -> ExpressionError | None:
    try:
        parse(text).evaluate(context)
    except ExpressionError as error:
        return error
    return None


@given(TEXTS | sound(), CONTEXTS)
def test_only_its_own_error_is_ever_raised(text: str, context: dict[str, Any]) -> None:
    error = failure(text, context)
    assert error is None or 1 <= error.position <= len(text) + 1


@given(sound())
def test_what_the_grammar_gives_parses_and_reads_only_its_paths(text: str) -> None:
    assert {path[0] for path in parse(text).paths()} <= {"a", "b", "c"}


@given(sound(), CONTEXTS)
def test_evaluating_twice_gives_the_same(text: str, context: dict[str, Any]) -> None:
    def once() -> str:
        try:
            return repr(parse(text).evaluate(context))
        except ExpressionError as error:
            return str(error)

    assert once() == once()


@given(
    st.lists(st.text(max_size=256) | st.integers(0, 9_999_999), max_size=31).map(lambda rest: ("root", *rest))
)
def test_a_path_is_read_as_it_is_written(path: paths.Path) -> None:
    text = paths.written(path)
    assert paths.read_path(text, 0) == (path, len(text))


@given(
    st.sampled_from(
        ["(", "not ", "$.a.", "$.a[", "'\\'", "\\", "1,", "$.a or ", "length(", "-", "in ", "[["]
    ),
    st.integers(1, 1000),
)
def test_repetitions_are_read_in_bounds(piece: str, count: int) -> None:
    assert isinstance(failure(piece * count, {}), ExpressionError)
