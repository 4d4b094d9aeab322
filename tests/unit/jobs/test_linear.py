"""Work over what users send grows no faster than what they send: operations are counted, not timed.

Counted are lines of our own code that run, and comparisons of the input's texts, which C code makes unseen.
"""

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from services.jobs import documents, pipeline
from services.jobs.fields import Faults, Fields
from services.jobs.refused import Refused
from tests.pipelining import logger, noop

SMALL, LARGE = 200, 1600
GROWTH_MAX = 1.5
"""How much more work a value may take in the large input than in the small one; a quadratic check: 8."""


class Text(str):
    """A text that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Text.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def operations(work: Callable[[], Any]) -> int:
    """Lines of Python that ran, and comparisons of Text."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before, former = Text.compared, sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except (Refused, documents.Malformed):
        pass
    finally:
        sys.settrace(former)
    return lines + Text.compared - before


def many(number: int) -> list[Text]:
    """Distinct texts of one length."""
    return [Text(f"n{index:05}") for index in range(number)]


def is_linear(work: Callable[[int], Callable[[], Any]]) -> bool:
    small, large = (operations(work(number)) / number for number in (SMALL, LARGE))
    return large <= small * GROWTH_MAX


def test_the_measure_finds_what_is_quadratic() -> None:
    def counted(number: int) -> Callable[[], Any]:
        names, others = many(number), many(number)
        return lambda: [name for name in names if others.count(name) > 1]

    assert not is_linear(counted)
    assert is_linear(lambda n: lambda: {*many(n)})


# ---------------------------------------------------------------- documents


def doubled_at_the_end(number: int) -> Callable[[], Any]:
    pairs: list[tuple[str, Any]] = [(name, 1) for name in [*many(number), Text(f"n{number - 1:05}")]]
    return lambda: documents._refuse_doubled(pairs)


def test_finding_a_doubled_key_is_linear() -> None:
    assert is_linear(doubled_at_the_end)


@pytest.mark.parametrize(
    "body",
    [
        lambda n: "{" + ",".join(f'"n{i}":1' for i in [*range(n), n - 1]) + "}",
        lambda n: json.dumps({f"n{i}": i for i in range(n)}),
        lambda n: json.dumps([[i] for i in range(n)]),
        lambda n: json.dumps("\\" * n + '"' * n),
        lambda n: "[" + "{}," * n + "[" * 40 + "]" * 40 + "]",
    ],
    ids=["doubled", "keys", "lists", "escapes", "deep at last"],
)
def test_reading_a_document_is_linear(body: Callable[[int], str]) -> None:
    for parse in (documents.parse_json, documents.parse_yaml):
        assert is_linear(lambda n, parse=parse: lambda: parse(body(n).encode()))  # type: ignore[misc]


# ---------------------------------------------------------------- fields


@pytest.mark.parametrize("kept_in", [tuple, list, set])
def test_unknown_and_known_fields_are_found_in_linear_time(kept_in: Callable[[Any], Any]) -> None:
    def read(number: int) -> Callable[[], Any]:
        body, known = dict.fromkeys(many(number)), kept_in(many(number))
        return lambda: Fields(body, "", known, Faults())

    assert is_linear(read)


def test_a_list_of_names_is_read_in_linear_time() -> None:
    def read(number: int) -> Callable[[], Any]:
        fields = Fields({"a": many(number)}, "", ("a",), Faults())
        known = tuple(many(number))
        return lambda: fields.names("a", "name", known, count_max=number)

    assert is_linear(read)


# ---------------------------------------------------------------- pipelines


def parsed(body: Any) -> Callable[[], Any]:
    return lambda: pipeline.parse(body)


SHAPES: dict[str, Callable[[int], Any]] = {
    "steps that follow together": lambda n: [noop("a", **{"on-success": _wide(n)}), noop("b")],
    "gotos": lambda n: [noop("a", **{"on-error": [{"b": f"$.x = {i}"} for i in range(n // 40)]}), noop("b")],
    "values": lambda n: {
        "steps": [noop("a", step_type="TRANSFORM", parameters={"output": [f"${{v{i}}}" for i in range(n)]})]
    },
    "unknown keys": lambda n: {"steps": [noop("a")], **dict.fromkeys(many(n))},
    "unknown keys of steps": lambda n: [noop("a", **dict.fromkeys(many(n)))],
    "hooks that call": lambda n: {
        "services": logger(),
        "steps": [
            noop(f"s{i}", **{"on-enter": [{"action": "Logger:start"}] * 20}) for i in range(max(n // 20, 1))
        ],
    },
    "large data of an action": lambda n: {
        "services": logger(
            actions={
                "start": {"parameters": {"url": "/", "method": "POST", "data": dict.fromkeys(many(n), 1)}}
            }
        ),
        "steps": [noop("a", **{"on-enter": ["Logger:start"] * 50})],
    },
}


def _wide(number: int) -> list[Any]:
    """Hooks as mappings of many actions each: more entries than a list may have."""
    return [{f"n{row}_{column}": None for column in range(40)} for row in range(number // 40)]


@pytest.mark.parametrize("name", SHAPES)
def test_checking_a_definition_is_linear(name: str) -> None:
    assert is_linear(lambda n: parsed(SHAPES[name](n)))
