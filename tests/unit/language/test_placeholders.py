"""Placeholders beyond the matrix: definitions, hosts and bases, each place's own rules."""

from collections.abc import Callable
from typing import Any

import pytest

from services.language import placeholders, scope
from services.language.placeholders import AT_CREATION, Unfilled

KNOWN = scope.Known(
    parameters=frozenset({"id", "base", "host", "query_param", "value"}),
    steps=frozenset({"fetch"}),
    secrets=frozenset({"token"}),
)
ABSOLUTE = "expected an absolute URL, http(s)://host[:port][/path][?query]"
NAME = "expected a name (a letter or _, then letters, digits, _ and -)"
CHARACTERS = "expected URL characters only"
NO_HOST = "expected no placeholder in scheme, host or port; the definition does not allow it"


def faults(fill: Callable[[], Any]) -> list[str]:
    with pytest.raises(Unfilled) as caught:
        fill()
    return [str(error) for error in caught.value.errors]


# ---------------------------------------------------------------- definitions


def test_the_example_of_the_step_type_works_verbatim() -> None:
    url, data, headers = (
        "https://httpbin.org/post?q=${query_param}",
        {"key": "${value}"},
        {"content-type": "application/json"},
    )
    checks = (
        placeholders.check_url(url, KNOWN),
        placeholders.check_data(data, KNOWN),
        placeholders.check_headers(headers, KNOWN),
    )
    assert checks == ([], [], [])
    values = {"query_param": "a b", "value": 5}
    assert placeholders.fill_url(url, values) == "https://httpbin.org/post?q=a%20b"
    assert placeholders.fill_data(data, values) == {"key": 5}
    assert placeholders.fill_headers(headers, values) == headers


def test_every_fault_of_a_definition_is_listed_with_its_path() -> None:
    template = {
        "a": "${nobody}",
        "b": [{"c d": "x ${steps.fetch.output} ${steps.later.result}"}],
        "e": "${",
        "f": "${a b}",
        "g": "${secrets.token} ${id}",
    }
    known = "base, execution, host, id, parameters, query_param, request, steps, value"
    assert [str(error) for error in placeholders.check_data(template, KNOWN, "steps[2].parameters.data")] == [
        f"steps[2].parameters.data.a: unknown name nobody; known: {known}",
        'steps[2].parameters.data.b[0]["c d"]: unknown name steps.fetch.output; known: result, status',
        'steps[2].parameters.data.b[0]["c d"]: unknown earlier step steps.later; known: fetch',
        f"steps[2].parameters.data.e: column 3: {NAME}, found the end",
        "steps[2].parameters.data.f: column 4: expected } after the name, found the character U+0020",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${}", f"column 3: {NAME}, found `}}`"),
        ("ab${ id}", f"column 5: {NAME}, found the character U+0020"),
        ("${id", "column 5: expected } after the name, found the end"),
        ("${id[}", "column 6: expected an index from 0 to 9999999 or a name in quotes after [, found `}`"),
        ("${id['x}", "column 6: expected ' at the end of the text that opens here, found the end"),
        ("${id|upper}", "column 5: expected } after the name, found `|`"),
        ("${1}", f"column 3: {NAME}, found `1`"),
    ],
)  # fmt: skip
def test_what_begins_no_placeholder_is_refused_with_its_column(text: str, message: str) -> None:
    assert [str(error) for error in placeholders.check_data(text, KNOWN)] == [f"data: {message}"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "expected text, found null"),
        ("", ABSOLUTE),
        ("/orders", f"{ABSOLUTE} (a path alone needs a base URL)"),
        ("ftp://x/", ABSOLUTE),
        ("https://a b/", f"{CHARACTERS} (ASCII, no spaces, quotes or backslashes); encode others"),
        ("https://x/#${id}", "expected no fragment (#...); remove it"),
        ("https://u:p@x/${id}", "expected no user or password before the host; put credentials into headers"),
        ("https://x:${id}/", NO_HOST),
        ("https://x${id}", NO_HOST),
        ("https://x${id}?q=1", NO_HOST),
        ("http${id}://x/", NO_HOST),
        ("${base}", NO_HOST),
        ("${base}/${id}", NO_HOST),
        ("https:/${id}/x", ABSOLUTE),
        ("//${host}/x", f"{ABSOLUTE} (a path alone needs a base URL)"),
        ("https://x/%2${id}", "expected a whole %XX before a placeholder, found a part of one"),
        ("https://x/%${id}", "expected a whole %XX before a placeholder, found a part of one"),
        ("https://x/\0${id}", f"{CHARACTERS}, found NUL"),
        ("https://x/" + "a" * 2048, "expected at most 2048 characters, found 2058"),
    ],
)  # fmt: skip
def test_a_url_of_a_definition_is_refused(url: Any, message: str) -> None:
    assert [error.message for error in placeholders.check_url(url, KNOWN)] == [message]


@pytest.mark.parametrize(
    "url",
    [
        "${base}",
        "${base}/x/${id}",
        "${base}?q=${id}",
        "https://${host}/x",
        "${value}://${host}:${id}/x?y=${id}",
        "https://api.${host}.example:8443",
    ],
)
def test_a_definition_may_allow_values_in_the_host(url: str) -> None:
    assert placeholders.check_url(url, KNOWN, allow_host=True) == []


def test_a_path_alone_may_stand_behind_a_base() -> None:
    assert placeholders.check_url("/log/${id}?t=${id}", KNOWN, relative=True) == []
    filled = placeholders.fill_url("/log/${id}?t=${id}", {"id": "a/b"}, base="http://127.0.0.1:9000/v1/")
    assert filled == "http://127.0.0.1:9000/v1/log/a%2Fb?t=a%2Fb"
    bad = faults(lambda: placeholders.fill_url("/log", {}, base="http://x/?y=1"))
    assert bad == ["url: base URL: expected no query"]


def test_a_template_may_be_a_whole_body() -> None:
    (fault,) = placeholders.check_data({"output": {"a": "${gone}"}}, scope.Known(), "")
    assert fault.pointer == "output.a"


def test_names_are_collected_from_everywhere() -> None:
    template = {"a": ["${x} ${y.z[0]}"], "b": "$${no}", "c": "${bro ken", "d": 1}
    assert placeholders.names(template) == {("x",), ("y", "z", 0)}


# ---------------------------------------------------------------- requests


def test_at_creation_only_the_requests_own_values_are_needed() -> None:
    template = {
        "a": "${steps.fetch.result.id}",
        "b": "${id}",
        "c": "${gone}",
        "d": "${execution.id} ${secrets.token}",
    }
    bad = faults(lambda: placeholders.fill_data(template, {"id": 1}, later=AT_CREATION))
    assert bad == ["data.c: expected a value for ${gone}, found none"]
    url = "https://${steps.fetch.result.host}/${steps.fetch.result.id}"
    placeholders.fill_url(url, {}, allow_host=True, later=AT_CREATION)
    bad = faults(lambda: placeholders.fill_headers({"X": "${id}"}, {"id": "a\nb"}, later=AT_CREATION))
    assert bad == ["headers.X: expected printable ASCII; line breaks, NUL and other characters are refused"]
    expression = {"a": "$.steps.fetch.result.n > 1", "b": "$.id > 'x'"}
    bad = faults(lambda: placeholders.fill_data(expression, {"id": 1}, expressions=True, later=AT_CREATION))
    assert bad == ["data.b: column 6: expected two numbers or two texts to order, found a number > text"]


@pytest.mark.parametrize(
    ("url", "values", "expected"),
    [
        ("${base}", {"base": "https://x.example/a?b=1"}, "https://x.example/a?b=1"),
        ("${base}/p", {"base": "https://x.example/a/"}, "https://x.example/a/p"),
        ("${base}?q=${base}", {"base": "https://x.example"}, "https://x.example?q=https%3A%2F%2Fx.example"),
        ("https://${host}/p", {"host": "[::1]:8080"}, "https://[::1]:8080/p"),
        ("${s}://${host}:${p}/", {"s": "http", "host": "x.example", "p": 81}, "http://x.example:81/"),
    ],
)
def test_values_in_the_host_where_they_are_allowed(url: str, values: dict[str, Any], expected: str) -> None:
    assert placeholders.fill_url(url, values, allow_host=True) == expected


HOST_PIECE = "${host}: expected a piece of a host or port: letters, digits, . _ - : [ ]"


@pytest.mark.parametrize(
    ("url", "host", "message"),
    [
        ("https://${host}/p", "evil.example/x?", HOST_PIECE),
        ("https://${host}/p", "a@evil.example", HOST_PIECE),
        ("https://${host}/p", "evil.example#", HOST_PIECE),
        ("https://${host}/p", "evil.example\\", HOST_PIECE),
        ("https://${host}/p", "ev%69l.example", HOST_PIECE),
        ("https://${host}/p", "", HOST_PIECE),
        ("https://${host}/p", None, "${host}: expected text, a number or a boolean, found null"),
        ("https://x.${host}/p", "y:1:2", ABSOLUTE),
        ("https://x:${host}/p", 70000, "expected a port from 1 to 65535, found 70000"),
        ("${host}://x/p", "file", ABSOLUTE),
        ("${host}/p", "https://x/?y=1", "base URL: expected no query"),
        (
            "${host}/p",
            "x.example",
            f"base URL: {ABSOLUTE}",
        ),
        ("${host}", ["https://x"], "base URL: expected text, found a list"),
        ("${host}x", "https://x", ABSOLUTE),
    ],
)
def test_values_in_the_host_that_are_refused(url: str, host: Any, message: str) -> None:
    assert faults(lambda: placeholders.fill_url(url, {"host": host}, allow_host=True)) == [f"url: {message}"]


@pytest.mark.parametrize("value", [".", "..", "../x", "x/..", "..\\x", "a/./b"])
def test_no_value_climbs_a_path(value: str) -> None:
    assert faults(lambda: placeholders.fill_url("https://x/a/${v}", {"v": value}))


@pytest.mark.parametrize(
    ("template", "value"),
    [("https://x/.${v}", "."), ("https://x/%2e${v}/y", "."), ("https://x/${v}${v}", ".")],
)
def test_no_value_completes_a_dot_segment(template: str, value: str) -> None:
    message = "url: expected no . or .. as a path segment, found one"
    assert faults(lambda: placeholders.fill_url(template, {"v": value})) == [message]


@pytest.mark.parametrize(
    ("template", "value", "message"),
    [
        ("https://x/${v}", "", "expected something in each path segment, found empty text"),
        ("https://x/${v}", None, "${v}: expected text, a number or a boolean, found null"),
        ("https://x/${v}", [1], "${v}: expected text, a number or a boolean, found a list"),
        ("https://x/?q=${v}", None, "${v}: expected a value, found null"),
        ("https://x/?q=${v}", "a" * 2048, "expected at most 2048 characters, found 2061"),
        ("https://x/?q=${v}", "\ud800", "expected text that UTF-8 can hold, found a lone surrogate"),
        ("https://x/?q=${v}", float("inf"), "expected a finite number, found another"),
        ("https://x/?q=${v}", 2**2000, "expected a number of at most 1024 bits, found a larger one"),
    ],
)
def test_values_that_fit_no_url(template: str, value: Any, message: str) -> None:
    assert faults(lambda: placeholders.fill_url(template, {"v": value})) == [f"url: {message}"]


def test_a_query_joins_the_urls_own() -> None:
    query = placeholders.fill_query({"a": ["${x}", 2, None], "b": True, "$${c}": "-${x}"}, {"x": "&"})
    assert query == "a=%26&a=2&b=true&%24%7Bc%7D=-%26"
    assert placeholders.with_query("https://x/?y=1", query) == f"https://x/?y=1&{query}"
    assert placeholders.with_query("https://x/", query) == f"https://x/?{query}"
    assert placeholders.with_query("https://x/", "") == "https://x/"


def test_a_query_is_an_object_with_plain_names_and_bounded() -> None:
    assert faults(lambda: placeholders.fill_query(["a"], {})) == [
        "query: expected an object of names and values, found a list"
    ]
    assert faults(lambda: placeholders.fill_query({"${x}": 1}, {"x": 1})) == [
        'query["${x}"]: expected no placeholder in a parameter\'s name; $${ stands for a literal ${'
    ]
    assert faults(lambda: placeholders.fill_query({"a": "${x}"}, {"x": "b" * 3000})) == [
        "query: expected at most 2048 characters, found 3002"
    ]


def test_headers_are_tokens_with_one_value_each() -> None:
    assert faults(
        lambda: placeholders.fill_headers({"X-A": None, "x-a": [1], "b c": "1", "Y": "x" * 4097}, {})
    ) == [
        'headers["X-A"]: expected text, a number or a boolean, found null',
        'headers["x-a"]: this name is given twice; names differ by more than case',
        'headers["x-a"]: expected text, a number or a boolean, found a list',
        'headers["b c"]: expected a header name (an HTTP token of at most 128 characters)',
        "headers.Y: expected at most 4096 characters, found 4097",
    ]
    many = {f"X-{n}": "1" for n in range(33)}
    assert faults(lambda: placeholders.fill_headers(many, {})) == [
        "headers: expected at most 32 headers, found 33"
    ]
    assert faults(lambda: placeholders.fill_headers("x", {})) == [
        "headers: expected an object of names and values, found text"
    ]
    assert placeholders.fill_headers({"X": 1, "Y": "${t}"}, {"t": True}) == {"X": "1", "Y": "true"}


def test_data_is_bounded_in_size_and_depth() -> None:
    big = {"v": "x" * 100_000}
    assert faults(lambda: placeholders.fill_data(["${v}"] * 4, big)) == [
        "data[2]: expected at most 262144 bytes of values in all, found more"
    ]
    nested: Any = "${v}"
    for _ in range(80):
        nested = [nested]
    (fault,) = faults(lambda: placeholders.fill_data(nested, big))
    assert fault.endswith(": expected at most 64 levels of lists and objects, found more")
    value: Any = 1
    for _ in range(60):
        value = [value]
    assert faults(lambda: placeholders.fill_data([[[[["${v}"]]]]], {"v": value})) == [
        "data: expected at most 64 levels of lists and objects, found more"
    ]
    assert faults(lambda: placeholders.fill_data({1: 2}, {})) == [
        'data["1"]: expected a key that is text, found a number'
    ]


def test_expressions_stand_in_templates_that_allow_them() -> None:
    template = {
        "a": "$.steps.list.result",
        "b": {"$.execution.id": None},
        "c": "$(length($.steps.list.result))",
        "d": "$$.x and $$(y)",
        "e": "${x}: $.x",
        "f": "$.nowhere",
        "g": "$${x}",
    }
    values = {"x": 1, "steps": {"list": {"result": [1, "${x}", "$.x"]}}, "execution": {"id": "6a"}}
    filled = placeholders.fill_data(template, values, expressions=True)
    assert filled == {
        "a": [1, "${x}", "$.x"], "b": "6a", "c": 3, "d": "$.x and $$(y)",
        "e": "1: $.x", "f": None, "g": "${x}",
    }  # fmt: skip
    query = placeholders.fill_query({"error": {"$.execution.id": None}, "t": "$.x"}, values, expressions=True)
    assert query == "error=6a&t=1"
    headers = placeholders.fill_headers({"X": "$.x"}, values, expressions=True)
    assert headers == {"X": "1"}
    assert placeholders.fill_data({"a": "$.x"}, values) == {"a": "$.x"}


def test_faults_of_expressions_have_their_path() -> None:
    checked = placeholders.check_data({"a": ["$.gone >", "$.gone"]}, KNOWN, expressions=True)
    assert [error.pointer for error in checked] == ["data.a[0]", "data.a[1]"]
    bad = faults(lambda: placeholders.fill_data({"a": "$.x > 'y'"}, {"x": 1}, expressions=True))
    assert bad == ["data.a: column 5: expected two numbers or two texts to order, found a number > text"]
