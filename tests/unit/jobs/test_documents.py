"""Bodies: whatever the bytes, a value within the limits or Malformed, and JSON read as others read it."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.documents import Malformed, parse_json, parse_yaml, pointer

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126))  # YAML escapes others in its own way


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    scalars = st.none() | st.booleans() | numbers | text
    return st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20)


@given(values(TEXT))
def test_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False, indent=2).encode()) == value


@given(values(PLAIN))
def test_json_is_yaml_too(value: Any) -> None:
    assert parse_yaml(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", ["0.1", "1E5", "-0.0", "1.10", "123456789012345.25", "2.5e-300", "1e22"])
def test_a_number_that_a_float_keeps_is_that_number(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        found = parse(f'{{"v": [{text}]}}'.encode())["v"][0]
        assert isinstance(found, float)
        assert Decimal(repr(found)) == Decimal(text)


@pytest.mark.parametrize(
    "text", ["1231231231231234123.5", "0.1000000000000000055", "1e-400", "1e400", "1e9999999999999999999"]
)
def test_a_number_that_would_lose_digits_is_refused_with_its_place(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        with pytest.raises(Malformed, match=r"^v\[0\]: expected a number that a 64-bit float keeps exactly"):
            parse(f'{{"v": [{text}]}}'.encode())


@given(st.binary())
def test_any_bytes_are_read_or_malformed(raw: bytes) -> None:
    for parse in (parse_json, parse_yaml):
        try:
            parse(raw)
        except Malformed:
            pass


@pytest.mark.parametrize(
    "text", ['{"a\\"b": 1, "c": "\\":"}', '{"a": {"a": {"a": ":"}}}', '{"\\u0061": 1, "b": 2}']
)
def test_keys_that_only_look_doubled(text: str) -> None:
    assert parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize("text", ['{"a": 1, "\\u0061": 2}', '{"x": [{"b": 1, "b": 1}]}', '{"": 1, "": 2}'])
def test_doubled_keys_are_found_however_they_are_spelled(text: str) -> None:
    with pytest.raises(Malformed, match="twice"):
        parse_json(text.encode())


def test_pointers_are_paths_as_the_sender_wrote_them() -> None:
    assert pointer(()) == "body"
    assert pointer(("params", "batches", 1, "x y")) == "params.batches[1].x y"
    assert pointer((0,)) == "[0]"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("2013-01-01", "2013-01-01"),
        ("0o17", "0o17"),
        ("007", "007"),
        ("1_000", "1_000"),
        (".nan", ".nan"),
        ("1e3", 1000.0),
        ("-1.5", -1.5),
        ("12", 12),
        ("~", None),
        ("'12'", "12"),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_follow_yamls_core_schema(text: str, value: Any) -> None:
    read = parse_yaml(f"a: {text}".encode())
    assert read == {"a": value}
    assert type(read["a"]) is type(value)
