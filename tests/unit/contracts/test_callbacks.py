"""What a callback may be: one table of faults with the field each one is reported at."""

import base64
from typing import Any

import pytest

from services.contracts import urls
from services.contracts.callbacks import check_callback

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
GOOD: dict[str, Any] = {
    "events": ["on-execution-complete", "step.failed"],
    "url": "https://example.com:8443/hook?a=b",
    "method": "PUT",
    "headers": {"X-Token": "t 1", "Authorization": "Bearer abc"},
    "secret": SECRET,
}


def test_a_good_callback_has_no_faults() -> None:
    assert check_callback(GOOD) == []
    assert check_callback({"url": "http://h"}) == []


CANARY = "canary-3141"


@pytest.mark.parametrize(
    ("change", "pointer", "word"),
    [
        ({"events": "step.failed"}, "callback.events", "list"),
        (
            {"events": ["step.failed", "step.exploded"]},
            "callback.events[1]",
            'unknown event "step.exploded"; known:',
        ),
        ({"events": [3]}, "callback.events[0]", "a number"),
        ({"url": None}, "callback.url", "null"),
        ({"url": "/hook"}, "callback.url", "absolute"),
        ({"url": f"ftp://h/{CANARY}"}, "callback.url", "http(s)"),
        ({"url": f"http://u:{CANARY}@h/"}, "callback.url", "user or password"),
        ({"url": f"http://h/#{CANARY}"}, "callback.url", "fragment"),
        ({"url": f"http://h\\@{CANARY}/"}, "callback.url", "backslash"),
        ({"url": "http://h:0/"}, "callback.url", "port"),
        ({"url": "http://h/" + "x" * 2048}, "callback.url", "2048"),
        ({"method": "GET"}, "callback.method", "POST, PUT"),
        ({"method": []}, "callback.method", "a list"),
        ({"headers": []}, "callback.headers", "object"),
        ({"headers": {f"h{i}": "" for i in range(33)}}, "callback.headers", "32"),
        ({"headers": {f"h{i}": "x" * 4000 for i in range(5)}}, "callback.headers", "16384"),
        ({"headers": {"X-A": f"{CANARY}\r\nX-B: c"}}, 'callback.headers["X-A"]', "line breaks"),
        ({"headers": {"X-A": f"{CANARY}\0"}}, 'callback.headers["X-A"]', "NUL"),
        ({"headers": {"X-A": f"{CANARY} é"}}, 'callback.headers["X-A"]', "ASCII"),
        ({"headers": {"X-A": 1}}, 'callback.headers["X-A"]', "a number"),
        ({"headers": {"X-A": "x" * 4097}}, 'callback.headers["X-A"]', "4096"),
        ({"headers": {"X A": "1"}}, 'callback.headers["X A"]', "token"),
        ({"headers": {"": "1"}}, 'callback.headers[""]', "token"),
        ({"headers": {"X-A\r\nHost": "1"}}, 'callback.headers["X-A\r\nHost"]', "token"),
        ({"headers": {"HOST": "1"}}, 'callback.headers["HOST"]', "set by Millstream"),
        ({"headers": {"Content-Length": "1"}}, 'callback.headers["Content-Length"]', "set by Millstream"),
        (
            {"headers": {"Transfer-Encoding": "1"}},
            'callback.headers["Transfer-Encoding"]',
            "set by Millstream",
        ),
        ({"headers": {"connection": "1"}}, 'callback.headers["connection"]', "set by Millstream"),
        ({"headers": {"Webhook-Id": "1"}}, 'callback.headers["Webhook-Id"]', "set by Millstream"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, 'callback.headers["x-a"]', "twice"),
        ({"secret": CANARY}, "callback.secret", "whsec_"),
        ({"secret": f"whsec_{CANARY}"}, "callback.secret", "base64"),
        ({"secret": "whsec_" + base64.b64encode(b"k" * 23).decode()}, "callback.secret", "24 to 64"),
        ({"secret": "whsec_" + base64.b64encode(b"k" * 65).decode()}, "callback.secret", "24 to 64"),
        ({"secret": 1}, "callback.secret", "a number"),
        ({"retries": 3}, "callback.retries", "unknown field; known: events, url, method, headers, secret"),
    ],
)
def test_a_fault_names_its_field_and_hides_its_value(change: dict[str, Any], pointer: str, word: str) -> None:
    [error] = check_callback(GOOD | change)
    assert error.pointer == pointer
    assert word in error.message
    assert CANARY not in error.message


def test_every_fault_is_reported_at_once() -> None:
    errors = check_callback({"events": ["x"], "method": "GET"}, "callbacks[2]")
    assert [error.pointer for error in errors] == [
        "callbacks[2].url",
        "callbacks[2].events[0]",
        "callbacks[2].method",
    ]


@pytest.mark.parametrize("body", [None, [], "http://h", 3])
def test_a_callback_is_an_object(body: Any) -> None:
    [error] = check_callback(body, "callbacks[0]")
    assert error.pointer == "callbacks[0]"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://H", urls.Url("http", "h", 80, "/")),
        ("HTTPS://h?x=/@", urls.Url("https", "h", 443, "/?x=/@")),
        ("http://h:8080/a%20b?c", urls.Url("http", "h", 8080, "/a%20b?c")),
        ("http://[::1]:81/", urls.Url("http", "::1", 81, "/")),
        ("http://127.1", urls.Url("http", "127.1", 80, "/")),
    ],
)
def test_a_url_is_read_as_written(text: str, url: urls.Url) -> None:
    assert urls.parse(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "", "h", "//h", "http:/h", "http:///p", "http://", "http://:80", "http://h:", "http://h:80:80",
        "http://h:x",
        "http://h:65536", "http://[::1", "http://::1/", "http://[fe80::1%25eth0]/", "http://h%00/",
        "http://h /",
        "http://\u2460.0.0.1/", "http://h/\n", "http://h/\r\nX: y", "http://h/\0", "file:///etc/passwd",
        "gopher://h", "javascript:alert(1)", "http://a@h", "http://a@b@h", "http://h\t/", " http://h", "http://h'",
    ],
)  # fmt: skip
def test_a_url_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        urls.parse(text)


def test_the_host_header_names_the_port_only_when_needed() -> None:
    assert urls.parse("https://h:443/").host_header == "h"
    assert urls.parse("https://[::1]:8443/").host_header == "[::1]:8443"
