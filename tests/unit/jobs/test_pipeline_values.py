"""Forms of pipelines and approvals: what fits, what does not, and the values that come of it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.jobs import pipeline
from services.jobs.fields import Faults
from services.jobs.pipeline import form, values
from services.jobs.refused import Refused
from tests.pipelining import api, noop


def faults_of(field: dict[str, Any], given: Any) -> list[str]:
    faults = Faults()
    values.checked(form.parse([{"name": "x", **field}]), {"x": given}, faults)
    return [str(error) for error in faults.errors]


FITS: list[tuple[dict[str, Any], list[Any]]] = [
    ({}, ["", "text", "x" * 16384]),
    ({"type": "integer"}, [0, -(2**63), 2**63 - 1]),
    ({"type": "number"}, [0, 1.5, -1e300]),
    ({"type": "boolean"}, [True, False]),
    ({"type": "object"}, [{}, {"a": [1]}]),
    ({"type": "array"}, [[], [1, "a", None]]),
    ({"type": "date"}, ["2013-02-28"]),
    ({"type": "any"}, ["a", 1, True, [], {}]),
    ({"pattern": "[A-Z]{2}[0-9]+"}, ["AB1"]),
    ({"pattern": "a|b"}, ["a", "b"]),
    ({"type": "integer", "min": 1, "max": 3}, [1, 3]),
    ({"type": "date", "min": "2013-01-01", "max": "2013-12-31"}, ["2013-01-01", "2013-12-31"]),
    ({"min_length": 1, "max_length": 2}, ["a", "ab"]),
    ({"type": "array", "min_length": 1, "max_length": 2}, [[1], [1, 2]]),
    ({"choices": ["a", "b"]}, ["a", "b"]),
]
TEXT = "text of at most 16384 characters without NUL"
UNFIT: list[tuple[dict[str, Any], Any, str]] = [
    ({}, 1, f"expected {TEXT}, found 1"),
    ({}, "\0", f'expected {TEXT}, found "\\u0000"'),
    ({}, "x" * 16385, f'expected {TEXT}, found "{"x" * 80}..."'),
    ({}, {"$.x": None}, f"expected {TEXT}, found an object"),
    ({"type": "integer"}, True, "expected a whole number of at most 64 bits, found true"),
    ({"type": "integer"}, 1.0, "expected a whole number of at most 64 bits, found 1.0"),
    ({"type": "integer"}, 2**63, f"expected a whole number of at most 64 bits, found {2**63}"),
    ({"type": "number"}, "1", 'expected a finite number, found "1"'),
    ({"type": "number"}, float("nan"), "expected a finite number, found nan"),
    ({"type": "boolean"}, 1, "expected true or false, found 1"),
    ({"type": "object"}, [], "expected an object, found a list"),
    ({"type": "array"}, {}, "expected a list, found an object"),
    ({"type": "array"}, ["x" * 70_000], "expected at most 65536 bytes, found more"),
    ({"type": "date"}, "2013-02-30", 'expected a date such as "2013-01-31", found "2013-02-30"'),
    ({"type": "any"}, "\ud800", f'expected {TEXT}, found "\\\\ud800"'),
    ({"pattern": "[A-Z]{2}"}, "ABC", 'expected text that matches [A-Z]{2}, found "ABC"'),
    ({"pattern": "a|b"}, "ab", 'expected text that matches a|b, found "ab"'),
    ({"pattern": "a"}, "a\n", 'expected text that matches a, found "a\\n"'),
    ({"type": "integer", "min": 1}, 0, "expected at least 1, found 0"),
    ({"type": "integer", "max": 1}, 2, "expected at most 1, found 2"),
    ({"type": "date", "max": "2013-12-31"}, "2014-01-01", 'expected at most 2013-12-31, found "2014-01-01"'),
    ({"min_length": 2}, "a", "expected at least 2 characters, found 1"),
    ({"type": "array", "max_length": 1}, [1, 2], "expected at most 1 entries, found 2"),
    ({"choices": ["a", "b"]}, "c", 'unknown choice "c"; known: a, b'),
    ({}, None, f"expected {TEXT}, found nothing"),
    ({"choices": ["a"]}, None, "expected one of a, found nothing"),
    ({"pattern": "[0-9]+"}, None, "expected text that matches [0-9]+, found nothing"),
    ({"max_length": 20}, None, "expected text of at most 20 characters, found nothing"),
    (
        {"type": "boolean", "title": "Gift", "description": "wrapped, with a card"},
        None,
        "expected Gift, true or false (wrapped, with a card), found nothing",
    ),
]


@pytest.mark.parametrize(("field", "given"), [(field, one) for field, all_ in FITS for one in all_])
def test_what_fits_is_taken(field: dict[str, Any], given: Any) -> None:
    assert faults_of(field, given) == []


@pytest.mark.parametrize(("field", "given", "expected"), UNFIT)
def test_what_does_not_fit_is_refused(field: dict[str, Any], given: Any, expected: str) -> None:
    assert faults_of(field, given) == [f"values.x: {expected}"]


def test_all_faults_of_the_values_are_told_at_once() -> None:
    found = pipeline.parse(
        {
            "form": [{"name": "a"}, {"name": "b", "type": "integer"}, {"name": "c", "default": "see"}],
            "steps": [noop("s")],
        }
    )
    with pytest.raises(Refused) as caught:
        pipeline.given_values(found, {"b": "1", "d": 1})
    assert [str(error) for error in caught.value.errors] == [
        "values.d: unknown field; known: a, b, c",
        f"values.a: expected {TEXT}, found nothing",
        'values.b: expected a whole number of at most 64 bits, found "1"',
    ]


@pytest.mark.parametrize("sent", [[], "x", 1])
def test_values_are_an_object(sent: Any) -> None:
    found = pipeline.parse({"form": [], "steps": [noop("s")]})
    with pytest.raises(Refused) as caught:
        pipeline.given_values(found, sent)
    assert str(caught.value).startswith("values: expected an object, found")


def test_defaults_are_filled_in_and_optional_values_may_be_left_out() -> None:
    items = [
        {"name": "a", "default": "x"},
        {"name": "b", "required": False},
        {"name": "c", "type": "integer"},
    ]
    found = pipeline.parse({"form": items, "steps": [noop("s")]})
    assert pipeline.given_values(found, {"c": 1}) == {"a": "x", "c": 1}
    assert pipeline.given_values(found, {"a": None, "c": 1, "b": None}) == {"a": "x", "b": None, "c": 1}
    assert pipeline.form_of(found) == [
        {"name": "a", "type": "string", "required": False, "default": "x"},
        {"name": "b", "type": "string", "required": False},
        {"name": "c", "type": "integer", "required": True},
    ]


def test_a_pipeline_without_a_form_needs_every_name_it_uses() -> None:
    step = api(
        parameters={
            "url": "https://shop.example/${order.items[0]}",
            "data": {"a": "${parameters.note}", "b": "$.sum", "c": {"$.deep": None}, "d": "${request.tag}"},
        },
        fail_on="$.result.body.total > $.most",
    )
    step["on-exit"] = [{"std:no-op": "$.quiet"}]
    found = pipeline.parse([step])
    asked = ["deep", "most", "note", "order", "quiet", "sum"]
    assert pipeline.form_of(found) == [{"name": name, "type": "any", "required": True} for name in asked]
    with pytest.raises(Refused) as caught:
        pipeline.given_values(found, {})
    assert [str(error) for error in caught.value.errors] == [
        f"values.{name}: expected a value, found nothing" for name in asked
    ]


def test_an_empty_form_takes_no_values() -> None:
    found = pipeline.parse({"form": [], "steps": [noop("s")]})
    assert pipeline.given_values(found, None) == {}
    with pytest.raises(Refused, match=r"values\.x: unknown field; known: none"):
        pipeline.given_values(found, {"x": 1})


@pytest.mark.parametrize("field", [{"secret": True}, {"name": "card_pin"}])
def test_a_secret_value_that_does_not_fit_is_not_repeated(field: dict[str, Any]) -> None:
    (read,) = form.parse([{"name": "x", "pattern": "[0-9]{4}", "title": "Code", **field}])
    faults = Faults()
    values.checked((read,), {read.name: "hush-hush"}, faults)
    (error,) = faults.errors
    wanted = "expected Code, text that matches [0-9]{4}, found another value (not shown: it is a secret)"
    assert str(error) == f"values.{read.name}: {wanted}"


def test_a_secret_field_has_no_value_in_the_definition() -> None:
    with pytest.raises(Refused) as caught:
        form.parse([{"name": "x", "secret": True, "default": "a", "choices": ["a"]}])
    assert [error.pointer for error in caught.value.errors] == ["form[0].default", "form[0].choices"]
    (read,) = form.parse([{"name": "x", "secret": True}])
    assert form.parse([read.as_json()]) == (read,)


def test_choices_are_compared_as_json() -> None:
    assert faults_of({"type": "any", "choices": [1, 0]}, True) == [
        "values.x: unknown choice true; known: 1, 0"
    ]
    assert faults_of({"type": "any", "choices": [1, 0]}, 1.0) == []
    assert faults_of({"type": "any", "choices": [[False]]}, [0]) == [
        "values.x: unknown choice a list; known: [False]"
    ]
    (field,) = form.parse([{"name": "x", "type": "any", "choices": [1, True, 0, False]}])
    assert field.choices == (1, True, 0, False)


def test_a_pattern_takes_linear_time_however_it_is_written() -> None:
    assert faults_of({"pattern": "(a+)+b"}, "a" * 16_000)
    assert faults_of({"pattern": "(a|a)*(a|aa)*c"}, "a" * 16_000)


@settings(max_examples=60)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_pattern_is_taken_or_refused_and_any_text_matches_or_not(pattern: str, text: str) -> None:
    try:
        (field,) = form.parse([{"name": "x", "pattern": pattern}])
    except Refused as refused:
        words = str(refused)
    else:
        words = values.fault_of(field, text) or "fits"
    assert words.encode()


def test_a_form_written_out_is_the_same_form() -> None:
    items = [
        {"name": "a", "pattern": "x+", "max_length": 5, "title": "A", "description": "an A"},
        {"name": "b", "type": "number", "min": 0, "max": 1.5, "choices": [0.5, 1], "default": 1},
    ]
    read = form.parse(items)
    assert form.parse([field.as_json() for field in read]) == read
