"""The API step: what it sends, and what each answer means (S3 3.4-3.10)."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from services.contracts import ids
from services.executor.steps.outcome import OUTPUT_BYTES_MAX, Done
from tests.calls import LOCAL, api, done, failed, outcome, retried, world
from tests.exporting import EXECUTION, World
from tests.receiver import Call, Receiver, drip, hang, receiving, reset, status

JSON = "Content-Type: application/json\r\n"


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        receiver.answers(status(200))
        yield receiver


@pytest.fixture
def here() -> Iterator[World]:
    with world(LOCAL, token="canary-token", other="0ther") as here:
        yield here


# ---------------------------------------------------------------- what is sent


async def test_the_request_is_what_the_step_says(receiver: Receiver, here: World) -> None:
    step = api(
        receiver.url("/hook?a=1"),
        method="put",
        headers={"X-Text": "text", "X-Number": 7, "X-Yes": True},
        query={"b": "ü &", "c": [1, "two"], "d": None, "e": True},
        data={"amount": 12.5, "who": ["ä"], "none": None},
    )
    await outcome(here, step)
    (call,) = receiver.calls
    assert (call.method, call.target) == ("PUT", "/hook?a=1&b=%C3%BC%20%26&c=1&c=two&e=true")
    assert json.loads(call.body) == {"amount": 12.5, "who": ["ä"], "none": None}
    assert call.headers["content-type"] == "application/json"
    assert (call.headers["x-text"], call.headers["x-number"], call.headers["x-yes"]) == ("text", "7", "true")
    assert call.headers["user-agent"] == "Millstream/test"


async def test_a_query_may_be_text_already(receiver: Receiver, here: World) -> None:
    await outcome(here, api(receiver.url(), query="a=1%202&b"))
    assert receiver.calls[0].target == "/hook?a=1%202&b"


@pytest.mark.parametrize(
    ("method", "data", "body"),
    [
        ("GET", {}, b""), ("HEAD", {}, b""), ("DELETE", {}, b""), ("DELETE", [], b""), ("GET", None, b""),
        ("POST", None, b""), ("POST", {}, b"{}"), ("PATCH", [], b"[]"), ("DELETE", {"a": 1}, b'{"a":1}'),
        ("POST", "text", b'"text"'), ("PUT", 0, b"0"), ("POST", False, b"false"),
    ],
)  # fmt: skip
async def test_empty_data_is_a_body_only_where_bodies_are_usual(
    receiver: Receiver, here: World, method: str, data: Any, body: bytes
) -> None:
    await outcome(here, api(receiver.url(), method=method, data=data))
    (call,) = receiver.calls
    assert call.body == body
    assert ("content-type" in call.headers) == bool(body)


async def test_a_content_type_of_the_step_s_own_stays(receiver: Receiver, here: World) -> None:
    await done(here, api(receiver.url(), headers={"content-type": "application/vnd.api+json"}, data={"a": 1}))
    assert receiver.calls[0].headers["content-type"] == "application/vnd.api+json"


async def test_every_attempt_of_a_visit_has_the_same_idempotency_key(receiver: Receiver, here: World) -> None:
    receiver.answers(status(503), reset, status(200))
    for attempt in (1, 2, 3):
        await outcome(here, api(receiver.url(), attempt))
    await done(here, api(receiver.url(), 4, visit=2))
    keys = [call.headers["idempotency-key"] for call in receiver.calls]
    first, second = (ids.step_key(EXECUTION, "call", visit) for visit in (1, 2))
    assert keys == [first, first, first, second]
    assert first != second


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"idempotency_header": "X-Request-Key"}, "x-request-key", ids.step_key(EXECUTION, "call", 1)),
        ({"headers": {"IDEMPOTENCY-key": "mine"}}, "idempotency-key", "mine"),
        ({"idempotency_header": None}, "idempotency-key", None),
    ],
)
async def test_the_idempotency_header_may_be_chosen(
    receiver: Receiver, here: World, changes: Any, name: str, value: str | None
) -> None:
    await done(here, api(receiver.url(), **changes))
    assert receiver.calls[0].headers.get(name) == value


async def test_secrets_are_filled_in_headers_and_data(receiver: Receiver, here: World) -> None:
    step = api(
        receiver.url(),
        headers={"Authorization": "Bearer ${secrets.token}"},
        data={
            "a": ["${secrets.other}", "-${secrets.token}-"],
            "b": "$${secrets.token} $$${secrets.other} $5 {}",
        },
    )
    await done(here, step)
    (call,) = receiver.calls
    assert call.headers["authorization"] == "Bearer canary-token"
    assert json.loads(call.body) == {
        "a": ["0ther", "-canary-token-"],
        "b": "${secrets.token} $0ther $5 {}",
    }


async def test_secrets_of_another_tenant_are_unknown(receiver: Receiver, here: World) -> None:
    step = api(receiver.url(), headers={"Authorization": "${secrets.token}"})
    assert (await failed(here, replace(step, tenant="emca"))).reason == "unknown_secret"
    assert receiver.calls == []


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"headers": {"A": "${secrets.none}"}}, "unknown_secret", "headers: the tenant has no secret 'none'"),
        ({"data": {"a": "${secrets.none}"}}, "unknown_secret", "data: the tenant has no secret 'none'"),
        ({"data": {"a": "${secrets.token.x}"}}, "unknown_secret", "'token.x'"),
        ({"data": {"a": "${name}"}}, "unresolved_placeholder", "data: found a placeholder"),
        ({"headers": {"a": "${steps.x.result}"}}, "unresolved_placeholder", "headers: found a placeholder"),
        ({"url": "http://127.0.0.1/?${secrets.token}"}, "secret_in_url", "url: no secret"),
        ({"query": {"a": "${secrets.token}"}}, "secret_in_url", "query: no secret"),
        ({"method": "TRACE"}, "bad_parameters", "method: expected one of DELETE, GET"),
        ({"method": 5}, "bad_parameters", "$.method"),
        ({"unknown": 5}, "bad_parameters", "unknown field `unknown`"),
        ({"timeout_s": 0}, "bad_parameters", "$.timeout_s"),
        ({"timeout_s": 1e9}, "bad_parameters", "$.timeout_s"),
        ({"response_bytes_max": 1 << 40}, "bad_parameters", "$.response_bytes_max"),
        ({"success_codes": ["2x"]}, "bad_parameters", "success_codes: expected a status"),
        ({"success_codes": [99]}, "bad_parameters", "success_codes: expected a status"),
        ({"headers": {"Host": "x"}}, "bad_parameters", "headers.Host: this header is set by Millstream"),
        ({"headers": {"Content-Length": "1"}}, "bad_parameters", "set by Millstream"),
        ({"headers": {"A B": "1"}}, "bad_parameters", "expected a header name"),
        ({"headers": {"A": "1\r\nB: 2"}}, "bad_parameters", "headers.A: expected printable ASCII"),
        ({"headers": {"A": {"b": 1}}}, "bad_parameters", "headers.A: expected text"),
        ({"idempotency_header": "Host"}, "bad_parameters", "idempotency_header.Host: this header is set"),
    ],
)
async def test_what_cannot_be_sent_fails_at_once(
    here: World, receiver: Receiver, changes: Any, reason: str, says: str
) -> None:
    failure = await failed(here, api(**{"url": receiver.url(), **changes}))
    assert failure.reason == reason
    assert says in failure.message
    assert receiver.calls == []


async def test_a_secret_that_is_no_header_is_not_shown(receiver: Receiver) -> None:
    with world(LOCAL, token="canary\r\nB: 1") as here:
        failure = await failed(here, api(receiver.url(), headers={"A": "${secrets.token}"}))
    assert failure.reason == "bad_parameters"
    assert "canary" not in failure.message


# ---------------------------------------------------------------- what an answer means


@pytest.mark.parametrize(
    ("code", "success_codes", "expected"),
    [
        (200, None, Done), (201, None, "http_201"), (204, None, "http_204"), (299, None, "http_299"),
        (201, [200, 201], Done), (200, [201], "http_200"), (204, ["200-204"], Done),
        (205, ["200-204"], "http_205"), (299, ["2xx"], Done), (404, ["2xx", 404], Done), (404, ["404"], Done),
        (503, [503], Done),
        (301, None, "http_301"), (308, None, "http_308"), (400, None, "http_400"), (401, None, "http_401"),
        (404, None, "http_404"), (409, None, "http_409"), (410, None, "http_410"), (422, None, "http_422"),
    ],
)  # fmt: skip
async def test_only_success_codes_succeed(
    receiver: Receiver, here: World, code: int, success_codes: Any, expected: Any
) -> None:
    receiver.answers(status(code))
    step = api(receiver.url(), **({} if success_codes is None else {"success_codes": success_codes}))
    if expected is Done:
        assert (await done(here, step))["status"] == code
    else:
        assert (await failed(here, step)).reason == expected


@pytest.mark.parametrize("code", [408, 425, 429, 500, 501, 502, 503, 504, 599])
async def test_what_may_pass_is_tried_again(receiver: Receiver, here: World, code: int) -> None:
    receiver.answers(status(code, body=b"busy"))
    again = await retried(here, api(receiver.url()))
    assert (again.reason, again.after_s) == (f"http_{code}", None)
    assert again.message == f"POST was answered with {code}: busy"


@pytest.mark.parametrize(
    ("headers", "after_s"),
    [
        ("Retry-After: 7\r\n", 7), ("Retry-After: 0\r\n", None), ("Retry-After: 86400\r\n", 3600),
        ("Retry-After: soon\r\n", None), ("Retry-After: -5\r\n", None),
        ("Retry-After: 1\r\nRetry-After: 2\r\n", None),
        (
            "Date: Sat, 01 Jan 2000 00:00:00 GMT\r\nRetry-After: Sat, 01 Jan 2000 00:02:00 GMT\r\n",
            120,  # by the receiver's own clock, however wrong it is
        ),
        ("Retry-After: Sat, 01 Jan 2000 00:02:00 GMT\r\n", None),
        ("Retry-After: Sat, 01 Jan 2200 00:02:00 GMT\r\n", 3600),
    ],
)  # fmt: skip
async def test_retry_after_is_passed_on_up_to_an_hour(
    receiver: Receiver, here: World, headers: str, after_s: float | None
) -> None:
    receiver.answers(status(429, headers))
    assert (await retried(here, api(receiver.url()))).after_s == after_s


async def test_a_failure_shows_the_beginning_of_the_answer(receiver: Receiver, here: World) -> None:
    receiver.answers(status(422, JSON, json.dumps({"error": "no such order", "more": "x" * 1000}).encode()))
    failure = await failed(here, api(receiver.url()))
    assert failure.message.startswith('POST was answered with 422: {"error": "no such order", "more": "xxx')
    assert len(failure.message) == len("POST was answered with 422: ") + 500


async def test_no_connection_is_tried_again(receiver: Receiver, here: World) -> None:
    receiver.answers(reset)
    assert (await retried(here, api(receiver.url()))).reason == "connection"
    closed = await retried(here, api("http://127.0.0.1:1/"))
    assert (closed.reason, closed.message) == ("connection", "connection refused")


@pytest.mark.parametrize("answer", [hang, drip])
async def test_the_call_s_timeout_is_tried_again_and_the_step_s_is_its_end(
    receiver: Receiver, here: World, answer: Any
) -> None:
    receiver.answers(answer)
    again = await retried(here, api(receiver.url(), timeout_s=0.3))
    assert again.reason == "timeout"
    assert "within 0.3 s" in again.message
    failure = await failed(here, api(receiver.url(), step_timeout_s=1))
    assert failure.reason == "timeout"
    assert "timeout of 1 s" in failure.message


# ---------------------------------------------------------------- the result


async def test_the_result_is_status_headers_and_json(receiver: Receiver, here: World) -> None:
    headers = 'ETag: "1"\r\nX-Request-Id: r1\r\nSet-Cookie: a=b\r\nLocation: /x\r\nX-Other: o\r\n'
    receiver.answers(status(200, JSON + headers, b'{"id": 5, "big": 1234567890123456789, "f": 0.1}'))
    assert await done(here, api(receiver.url())) == {
        "status": 200,
        "headers": {
            "content-type": "application/json",
            "location": "/x",
            "etag": '"1"',
            "x-request-id": "r1",
        },
        "body": {"id": 5, "big": 1234567890123456789, "f": 0.1},
        "body_file": None,
    }


@pytest.mark.parametrize(
    ("headers", "body", "read"),
    [
        ("", b'{"a": 1}', {"a": 1}),
        ("Content-Type: application/problem+json; charset=utf-8\r\n", b'{"a": 1}', {"a": 1}),
        (JSON, b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (JSON, b"null", None),
        (JSON, b'"text"', "text"),
        ("Content-Type: text/plain\r\n", b'{"a": 1}', '{"a": 1}'),
        ("Content-Type: text/plain; charset=ISO-8859-1\r\n", b"\xe4", "ä"),
        ("Content-Type: text/plain\r\n", "ä".encode(), "ä"),
        ("", b"", None),
    ],
)
async def test_a_body_is_what_it_says(
    receiver: Receiver, here: World, headers: str, body: bytes, read: Any
) -> None:
    receiver.answers(status(200, headers, body))
    output = await done(here, api(receiver.url()))
    assert (output["body"], output["body_file"]) == (read, None)


async def test_headers_that_are_no_text_and_long_ones_are_bounded(receiver: Receiver, here: World) -> None:
    async def answer(_call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "\xff\xe4"\r\nLocation: /' + b"x" * 7_000 + b"\r\n")
        writer.write(b"X-Request-Id: \xc3\xa4\r\nContent-Length: 0\r\n\r\n")

    receiver.answers(answer)
    headers = (await done(here, api(receiver.url())))["headers"]
    assert headers == {"location": "/" + "x" * 2_047, "etag": '"\ufffd\ufffd"', "x-request-id": "ä"}


@pytest.mark.parametrize(
    ("headers", "body", "name", "type_"),
    [
        (JSON, json.dumps(["x" * 1000] * 40).encode(), "call-response.json", "application/json"),
        (JSON, json.dumps(["x" * 1000] * 400).encode(), "call-response.json", "application/json"),
        ("Content-Type: text/html\r\n", b"<p>" * 20_000, "call-response.txt", "text/plain; charset=utf-8"),
        ("Content-Type: image/png\r\n", b"\x89PNG\0\xff", "call-response.bin", "application/octet-stream"),
    ],
)
async def test_a_large_body_and_bytes_become_the_step_s_file(
    receiver: Receiver, here: World, headers: str, body: bytes, name: str, type_: str
) -> None:
    receiver.answers(status(200, headers, body))
    ended = await outcome(here, api(receiver.url()))
    assert isinstance(ended, Done)
    (file,) = ended.files
    assert (ended.output["body"], ended.output["body_file"]) == (None, name)
    assert (file.name, file.content_type, file.bytes) == (name, type_, len(body))
    assert here.content(file.key) == body
    assert len(json.dumps(ended.output)) < OUTPUT_BYTES_MAX


async def test_a_later_visit_s_file_has_its_own_name(receiver: Receiver, here: World) -> None:
    receiver.answers(status(200, body=b"\xff"))
    assert (await done(here, api(receiver.url(), visit=3)))["body_file"] == "call-response-3.bin"
