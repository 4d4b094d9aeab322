"""Placeholders: what holds whatever the value is."""

import string
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts import urls
from services.language import placeholders
from services.language.placeholders import Unfilled
from services.language.placeholders.parts import Reference, escaped, parts
from services.language.values import as_text

SCALARS = st.text() | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
TRICKY = st.text(
    alphabet=st.sampled_from([*"/\\?#&%.:@=${}[]'\" \r\n\0;", *string.ascii_letters, "é", "Ω"]), max_size=30
)
JSON = st.recursive(
    st.none() | SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def url_or_none(template: str, value: Any, **rules: Any) -> str | None:
    try:
        return placeholders.fill_url(template, {"v": value}, **rules)
    except Unfilled:
        return None


@given(TRICKY | SCALARS)
def test_any_value_in_a_path_comes_back_whole_and_moves_nothing(value: Any) -> None:
    filled = url_or_none("https://api.example.com/a/${v}/b?c=d", value)
    if filled is not None:
        split = urlsplit(filled)
        assert (split.scheme, split.netloc, split.query, split.fragment) == (
            "https",
            "api.example.com",
            "c=d",
            "",
        )
        first, segment, last = split.path.removeprefix("/").split("/")
        assert (first, last) == ("a", "b")
        assert unquote(segment) == as_text(value)


@given(TRICKY | st.text())
def test_any_text_in_a_query_comes_back_whole(value: str) -> None:
    filled = url_or_none(
        "https://api.example.com/a?x=1&v=<${v}>&y=2".replace("<", "-").replace(">", "-"), value
    )
    if filled is not None:
        pairs = parse_qsl(urlsplit(filled).query, keep_blank_values=True, strict_parsing=True)
        assert pairs == [("x", "1"), ("v", f"-{value}-"), ("y", "2")]


@given(st.dictionaries(TRICKY.filter(lambda key: "${" not in key), TRICKY, max_size=5))
def test_any_query_comes_back_whole(given: dict[str, str]) -> None:
    values = {f"v{n}": value for n, value in enumerate(given.values())}
    template = {key: f"${{v{n}}}" for n, key in enumerate(given)}
    pairs = parse_qsl(placeholders.fill_query(template, values), keep_blank_values=True)
    assert pairs == [*given.items()]


@given(TRICKY | st.text() | JSON)
def test_no_value_names_another_host(value: Any) -> None:
    for template in (
        "https://api.example.com/${v}",
        "https://api.example.com/?${v}",
        "https://api.example.com:8443/a${v}${v}",
    ):
        filled = url_or_none(template, value)
        if filled is not None:
            assert urls.parse(filled).host == "api.example.com"
            assert filled.startswith(template.partition("$")[0])
    for template in (
        "https://${v}/",
        "https://api.example.com${v}/",
        "${v}://api.example.com/",
        "${v}/a",
        "${v}",
    ):
        assert url_or_none(template, value) is None


@given(TRICKY | st.text())
def test_an_allowed_host_is_still_one_url(value: str) -> None:
    for template in ("https://${v}/a", "${v}://x/a", "${v}/a", "https://x.${v}.y/a"):
        filled = url_or_none(template, value, allow_host=True)
        if filled is not None:
            parsed = urls.parse(filled)
            assert parsed.target.endswith("/a")
            assert urlsplit(filled).hostname == parsed.host.strip("[]")


@given(TRICKY | JSON)
def test_a_header_stays_one_header(value: Any) -> None:
    try:
        filled = placeholders.fill_headers({"X-A": "a${v}", "X-B": "${v}"}, {"v": value})
    except Unfilled:
        return
    assert [*filled] == ["X-A", "X-B"]
    assert all(char == "\t" or " " <= char <= "~" for text in filled.values() for char in text)


@given(JSON)
def test_a_value_alone_keeps_its_type_and_is_not_read_again(value: Any) -> None:
    values = {"v": value, "w": "never"}
    assert placeholders.fill_data({"a": ["${v}"]}, values) == {"a": [value]}
    assert repr(placeholders.fill_data("${v}", values)) == repr(value)


@given(st.text() | TRICKY, TRICKY)
def test_one_pass_only(value: str, around: str) -> None:
    before, after = around.replace("${", ""), "end"
    before = before.rstrip("$")
    assert placeholders.fill_data(f"{before}${{v}}{after}", {"v": value}) == f"{before}{value}{after}"


@given(st.text(alphabet="${}ab ") | st.text())
def test_every_text_can_be_written(text: str) -> None:
    literal = (text,) if text else ()
    assert parts(escaped(text)) == literal
    assert parts(escaped(text, before_reference=True) + "${x}") == (*literal, Reference(("x",)))


@given(JSON, st.text())
def test_no_error_repeats_a_secret(template: Any, secret: str) -> None:
    canary = f"canary{secret}\n\ud800"
    texts = {
        "a": "${secrets.token.x} ${secrets.token}",
        "b": template,
        "c": "$.token > 1",
        "d": "$(length(true))",
    }
    values = {"secrets": {"token": canary}, "token": canary}
    for fill in (placeholders.fill_data, placeholders.fill_headers, placeholders.fill_query):
        with pytest.raises(Unfilled) as caught:
            fill(texts, values, expressions=True)
        assert "canary" not in str(caught.value)


PIECES = st.lists(
    st.sampled_from(["${a}", "${b}", "${secrets.token}", "$", "$$", "{", "}", "$${", "$.a", "$$.b", "x"]),
    max_size=6,
).map("".join)
TEMPLATES = st.recursive(
    PIECES | st.integers() | st.just({"$.a": None}),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["k", "$${k}", "$$"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def outcome(fill: Any) -> Any:
    try:
        return fill()
    except Unfilled as unfilled:
        return unfilled.errors


@given(TEMPLATES, TRICKY | PIECES | JSON, PIECES, PIECES, st.booleans())
def test_binding_and_then_filling_is_filling(
    template: Any, a: Any, b: str, token: str, expressions: bool
) -> None:
    """Wherever the values and the secret come from, and whatever placeholders they seem to hold."""
    values = {"a": a, "b": b}
    secrets = {"secrets": {"token": token}}
    for fill, bind in (
        (placeholders.fill_data, placeholders.bind_data),
        (placeholders.fill_headers, placeholders.bind_headers),
    ):
        whole = template if fill is placeholders.fill_data else {"X": template}
        at_once = outcome(lambda: fill(whole, {**values, **secrets}, expressions=expressions))  # noqa: B023
        bound = outcome(lambda: bind(whole, values, expressions=expressions))  # noqa: B023
        in_two = outcome(lambda: fill(bound, secrets)) if not isinstance(bound, tuple) else bound  # noqa: B023
        assert repr(in_two) == repr(at_once)
        if not isinstance(bound, tuple):
            assert placeholders.names(bound) <= {("secrets", "token")}
