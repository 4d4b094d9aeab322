"""docs/expressions.md against the code: every example, every limit, every function, every operator."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from services.language import paths, scope
from services.language.expressions import ExpressionError, evaluator, expression_text, parse, parser

PAGE = (Path(__file__).parents[3] / "docs" / "expressions.md").read_text(encoding="utf-8")


@cache
def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[tuple[str, ...]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]
    return [
        row for row in cells if row[0] not in {"expression", "what", "in", "path", "function", "operator"}
    ]


def bare(cell: str) -> str:
    return cell.removeprefix("`").removesuffix("`")


def context() -> Any:
    found = re.search(r"```json\n(.*?)```", section("Examples"), re.DOTALL)
    assert found, "expected a context in JSON"
    return json.loads(found[1])


GIVEN, REFUSED = map(rows, section("Examples").split("And what is refused:"))


@pytest.mark.parametrize(("expression", "value"), GIVEN)
def test_an_example_gives_its_value(expression: str, value: str) -> None:
    result = parse(bare(expression)).evaluate(context())
    assert json.dumps(result) == bare(value)


@pytest.mark.parametrize(("expression", "error"), REFUSED)
def test_an_example_is_refused(expression: str, error: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(bare(expression)).evaluate(context())
    assert str(caught.value) == error


def test_there_are_examples() -> None:
    assert len(GIVEN) > 20 and len(REFUSED) > 10


def test_the_context_of_the_examples_is_the_one_of_the_system() -> None:
    given = context()
    assert given == scope.context(*(given[root] for root in ("parameters", "steps", "execution", "request")))


def test_the_forms_of_the_first_table_are_read() -> None:
    texts = [bare(row[2]).strip('"') for row in rows(section("Where an expression stands"))]
    _, text, mapping, wrapped = texts
    assert expression_text(text) == text
    assert expression_text({mapping.strip("{}"): None}) == "$.execution.id"
    assert expression_text(wrapped) == "length($.steps.list.result)"
    for one in (text, mapping.strip("{}"), expression_text(wrapped) or ""):
        parse(one)


def test_limits_are_those_of_the_code() -> None:
    stated = [int(row[1].replace(",", "")) for row in rows(section("Limits"))]
    assert stated == [
        parser.SOURCE_CHARS_MAX,
        parser.DEPTH_MAX,
        parser.NODES_MAX,
        paths.SEGMENTS_MAX,
        paths.NAME_CHARS_MAX,
        evaluator.COMPARED_MAX,
        evaluator.RESULT_BYTES_MAX,
    ]


def test_functions_and_reserved_names_are_those_of_the_code() -> None:
    named = re.findall(r"^\| `(\w+)\(", section("Functions"), re.MULTILINE)
    assert sorted(named) == [*evaluator.FUNCTIONS]
    for name in scope.RESERVED:
        assert f"`{name}`" in section("What it reads")


def test_every_operator_of_the_grammar_is_in_the_table_and_parses() -> None:
    grammar = re.search(r"^operator +=(.*);$", section("Grammar"), re.MULTILINE)
    assert grammar
    operators = [one.replace('" , "', " ").strip(' "') for one in grammar[1].split("|")]
    for operator in operators:
        assert f"`{operator}`" in section("Operators")
        assert parse(f"1 {operator} 2").paths() == frozenset()
