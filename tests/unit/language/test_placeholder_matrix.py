"""The forty bad inputs of placeholders, one named case each.

Nine of URLs, nine of headers, ten of JSON, six missing, nested and huge ones, six of secrets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from services.language import placeholders, scope
from services.language.placeholders import Unfilled

URL = "https://api.example.com/users/${id}/orders"
NO_HOST = "url: expected no placeholder in scheme, host or port; the definition does not allow it"
NO_DOTS = "url: expected no . or .. as a path segment, found one"
PRINTABLE = "expected printable ASCII; line breaks, NUL and other characters are refused"
OWN_HEADER = "this header is set by Millstream; remove it"
MEGABYTE = "x" * 2**20


@dataclass(frozen=True)
class Refused:
    """The errors that a case ends with; an answer of another type is what it gives."""

    errors: tuple[str, ...]


def refused(*errors: str) -> Refused:
    return Refused(errors)


def answer(fill: Callable[[], Any]) -> Any:
    try:
        return fill()
    except Unfilled as unfilled:
        return refused(*map(str, unfilled.errors))


Case = tuple[str, Any, Mapping[str, Any], Any]


def named(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("template", "values", "expected"), [
        pytest.param(template, values, expected, id=name) for name, template, values, expected in cases
    ])  # fmt: skip


IN_URL: list[Case] = [
    ("slash", URL, {"id": "a/b"}, "https://api.example.com/users/a%2Fb/orders"),
    ("question mark", URL, {"id": "a?b"}, "https://api.example.com/users/a%3Fb/orders"),
    ("hash", URL, {"id": "a#b"}, "https://api.example.com/users/a%23b/orders"),
    ("dot segments", URL, {"id": ".."}, refused(NO_DOTS)),
    (
        "ampersand",
        "https://api.example.com/?q=${id}&page=1",
        {"id": "a&admin=1"},
        "https://api.example.com/?q=a%26admin%3D1&page=1",
    ),
    ("host", "https://${id}/users", {"id": "evil.example"}, refused(NO_HOST)),
    ("scheme", "${id}://api.example.com/", {"id": "file"}, refused(NO_HOST)),
    ("userinfo", "https://api.example.com${id}/users", {"id": "@evil.example"}, refused(NO_HOST)),
    ("double encoding", URL, {"id": "%2F%2e"}, "https://api.example.com/users/%252F%252e/orders"),
]


@named(IN_URL)
def test_in_a_url(template: Any, values: Mapping[str, Any], expected: Any) -> None:
    assert answer(lambda: placeholders.fill_url(template, values)) == expected


IN_HEADERS: list[Case] = [
    ("CR", {"X-Id": "${id}"}, {"id": "a\rb"}, refused(f'headers["X-Id"]: {PRINTABLE}')),
    ("LF", {"X-Id": "${id}"}, {"id": "a\nb"}, refused(f'headers["X-Id"]: {PRINTABLE}')),
    (
        "CRLF and a header",
        {"X-Id": "n ${id}"},
        {"id": "a\r\nX-Admin: 1"},
        refused(f'headers["X-Id"]: {PRINTABLE}'),
    ),
    ("NUL", {"X-Id": "${id}"}, {"id": "a\0b"}, refused(f'headers["X-Id"]: {PRINTABLE}')),
    ("folding", {"X-Id": "${id}"}, {"id": "a\r\n b"}, refused(f'headers["X-Id"]: {PRINTABLE}')),
    ("not Latin", {"X-Id": "${id}"}, {"id": "Ω"}, refused(f'headers["X-Id"]: {PRINTABLE}')),
    (
        "in the name",
        {"X-${id}": "1"},
        {"id": "A"},
        refused(
            'headers["X-${id}"]: expected no placeholder in a header\'s name; $${ stands for a literal ${',
            'headers["X-${id}"]: expected a header name (an HTTP token of at most 128 characters)',
        ),
    ),
    ("Host", {"Host": "${id}"}, {"id": "evil.example"}, refused(f"headers.Host: {OWN_HEADER}")),
    (
        "Content-Length and Transfer-Encoding",
        {"content-length": "${id}", "Transfer-Encoding": "chunked"},
        {"id": 5},
        refused(
            f'headers["content-length"]: {OWN_HEADER}',
            f'headers["Transfer-Encoding"]: {OWN_HEADER}',
        ),
    ),
]


@named(IN_HEADERS)
def test_in_a_header(template: Any, values: Mapping[str, Any], expected: Any) -> None:
    assert answer(lambda: placeholders.fill_headers(template, values)) == expected


IN_JSON: list[Case] = [
    ("quote", {"a": "${v}"}, {"v": '","admin":true,"b":"'}, {"a": '","admin":true,"b":"'}),
    ("backslash", {"a": "${v}"}, {"v": "\\"}, {"a": "\\"}),
    ("number", {"a": "${v}", "b": "${w}"}, {"v": 7, "w": 1.5}, {"a": 7, "b": 1.5}),
    ("boolean", {"a": "${v}"}, {"v": True}, {"a": True}),
    ("null", {"a": "${v}"}, {"v": None}, {"a": None}),
    ("list", {"a": "${v}"}, {"v": [1, "${v}"]}, {"a": [1, "${v}"]}),
    ("object", {"a": "${v}"}, {"v": {"b": 1}}, {"a": {"b": 1}}),
    (
        "part of a text",
        "n=${n} t=${t} z=${z} s=${s} l=${l} o=${o}",
        {"n": 7, "t": True, "z": None, "s": 'a"b', "l": [1, "é"], "o": {"b": False}},
        'n=7 t=true z=null s=a"b l=[1,"é"] o={"b":false}',
    ),
    (
        "lone surrogate",
        {"a": "${v}"},
        {"v": "\ud800"},
        refused("data.a: expected text that UTF-8 can hold, found a lone surrogate"),
    ),
    (
        "in a key",
        {"${v}": 1},
        {"v": "admin"},
        refused('data["${v}"]: expected no placeholder in a key; $${ stands for a literal ${'),
    ),
]


@named(IN_JSON)
def test_in_json(template: Any, values: Mapping[str, Any], expected: Any) -> None:
    given = answer(lambda: placeholders.fill_data(template, values))
    assert given == expected
    assert repr(given) == repr(expected)  # True is not 1, 1 is not 1.0


OTHERS: list[Case] = [
    (
        "missing",
        {"a": "${one}", "b": ["${two} and ${steps.s.result.x}"], "c": "${given}"},
        {"given": 1, "steps": {"s": {"result": {"y": 1}}}},
        refused(
            "data.a: expected a value for ${one}, found none",
            "data.b[0]: expected a value for ${two}, found none",
            "data.b[0]: expected a value for ${steps.s.result.x}, found none",
        ),
    ),
    (
        "nested",
        {"a": "${one${two}}"},
        {"one": 1, "two": "x"},
        refused("data.a: column 6: expected } after the name, found `$`"),
    ),
    (
        "value that contains a placeholder",
        {"a": "${v}", "b": "<${v}>"},
        {"v": "${w} $${w}", "w": "no"},
        {"a": "${w} $${w}", "b": "<${w} $${w}>"},
    ),
    (
        "escape",
        {"a": "$${v}", "b": "$$${v}", "c": "$5 $$ $v {v} $$$${v}", "$${v}": 1},
        {"v": 7},
        {"a": "${v}", "b": "$7", "c": "$5 $$ $v {v} $${v}", "${v}": 1},
    ),
    (
        "1 MB",
        {"a": "${v}"},
        {"v": MEGABYTE},
        refused("data.a: expected at most 262144 bytes, found more"),
    ),
    (
        "10,000 of them",
        ["${v}"] * 10_000,
        {"v": 1},
        refused("data[1000]: expected at most 1000 placeholders, found more"),
    ),
]


@named(OTHERS)
def test_missing_nested_and_huge(template: Any, values: Mapping[str, Any], expected: Any) -> None:
    assert answer(lambda: placeholders.fill_data(template, values)) == expected


VALUES = {"note": "${secrets.token}", "secrets": {"token": "canary-1\n"}}
KNOWN = scope.Known(parameters=frozenset({"note"}), secrets=frozenset({"token"}))


def asked_for_by_a_user_value() -> Any:
    return placeholders.fill_data({"a": "${note}", "b": "-${note}"}, VALUES)


def in_a_url() -> Any:
    checked = placeholders.check_url("https://api.example.com/?t=${secrets.token}", KNOWN)
    filled = answer(lambda: placeholders.fill_query({"t": "${secrets.token}"}, VALUES))
    return refused(*map(str, checked), *filled.errors)


def in_a_log() -> Any:
    template = {"a": "Bearer ${secrets.token}", "b": "${note}"}
    return placeholders.fill_data(template, placeholders.redacted(VALUES))


def of_another_tenant() -> Any:
    theirs = ["${secrets.acme.token}", "${secrets.password}", "${secrets['../acme/token']}", "${secrets}"]
    checked = placeholders.check_data(theirs, KNOWN)
    filled = answer(lambda: placeholders.fill_data("${secrets.password}", VALUES))
    return refused(*map(str, checked), *filled.errors)


def in_an_error() -> Any:
    return answer(lambda: placeholders.fill_headers({"Authorization": "Bearer ${secrets.token}"}, VALUES))


def in_a_condition() -> Any:
    condition = "$.secrets.token = 'canary-1'"
    checked = scope.check_expression(condition, KNOWN, "on-exit[0]")
    seen = placeholders.fill_data(f"$({condition})", VALUES, expressions=True)
    return refused(*map(str, checked), str(seen))


NO_URL = "${secrets.token} cannot stand in a URL or query, which logs and proxies keep"
OF_SECRETS: list[tuple[Callable[[], Any], Any]] = [
    (asked_for_by_a_user_value, {"a": "${secrets.token}", "b": "-${secrets.token}"}),
    (in_a_url, refused(f"url: {NO_URL}", f"query.t: {NO_URL}")),
    (in_a_log, {"a": "Bearer ***", "b": "${secrets.token}"}),
    (
        of_another_tenant,
        refused(
            "data[0]: unknown name secrets.acme; known: token",
            "data[1]: unknown name secrets.password; known: token",
            "data[2]: unknown name secrets['../acme/token']; known: token",
            "data[3]: expected secrets.<name>, found secrets alone; known: token",
            "data: expected a value for ${secrets.password}, found none",
        ),
    ),
    (in_an_error, refused(f"headers.Authorization: {PRINTABLE}")),
    (
        in_a_condition,
        refused(
            "on-exit[0]: expressions cannot read secrets; use ${secrets.<name>} in headers or data",
            "False",
        ),
    ),
]


@pytest.mark.parametrize(("ask", "expected"), OF_SECRETS, ids=lambda one: getattr(one, "__name__", ""))
def test_secrets(ask: Callable[[], Any], expected: Any) -> None:
    given = ask()
    assert given == expected
    assert "canary" not in repr(given)


def test_the_matrix_is_whole() -> None:
    sizes = [len(cases) for cases in (IN_URL, IN_HEADERS, IN_JSON, OTHERS, OF_SECRETS)]
    assert sizes == [9, 9, 10, 6, 6]
