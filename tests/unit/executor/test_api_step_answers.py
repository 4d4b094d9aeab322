"""The fourteen bad answers, one named test each: whatever a receiver sends, the step ends, soon and small."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from services.executor.calls import answer
from services.executor.steps.outcome import Done
from services.runtime.exchange import Response
from tests import receiver as receivers
from tests.calls import LOCAL, api, done, failed, outcome, retried, world
from tests.exporting import World
from tests.receiver import BOMB, Receiver, encoded, receiving, status

JSON = "Content-Type: application/json\r\n"
MEMORY_MAX = 30_000_000
ZSTD = bytes.fromhex("28b52ffd0408210000") + b"ok" + b"\0" * 4


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def here() -> Iterator[World]:
    with world(LOCAL) as here:
        yield here


def bomb(encoding: str) -> bytes:
    zeros = b"\0" * 50_000_000
    return gzip.compress(zeros) if encoding == "gzip" else zlib.compress(zeros)


# ---------------------------------------------------------------- 1 gzip


@pytest.mark.parametrize("name", ["gzip", "x-gzip", "GZIP", "identity, gzip"])
async def test_gzip(receiver: Receiver, here: World, name: str) -> None:
    receiver.answers(encoded(name, gzip.compress(b'{"a": 1}'), JSON))
    assert (await done(here, api(receiver.url())))["body"] == {"a": 1}


async def test_gzip_of_several_members(receiver: Receiver, here: World) -> None:
    receiver.answers(encoded("gzip", gzip.compress(b'{"a"') + gzip.compress(b": 1}"), JSON))
    assert (await done(here, api(receiver.url())))["body"] == {"a": 1}


@pytest.mark.parametrize("bits", [15, -15])
async def test_deflate_with_and_without_its_frame(receiver: Receiver, here: World, bits: int) -> None:
    receiver.answers(encoded("deflate", zlib.compress(b'{"a": 1}', wbits=bits), JSON))
    assert (await done(here, api(receiver.url())))["body"] == {"a": 1}


async def test_gzip_bomb(receiver: Receiver, here: World) -> None:
    receiver.answers(BOMB)
    await done(here, api(receiver.url("/warm"), success_codes=[204]))
    tracemalloc.start()
    try:
        failure = await failed(here, api(receiver.url()))
        assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX
    finally:
        tracemalloc.stop()
    assert failure.reason == "response_too_large"
    assert failure.message == "the answer unpacks to more than 1048576 bytes"


async def test_deflate_bomb(receiver: Receiver, here: World) -> None:
    receiver.answers(encoded("deflate", bomb("deflate")))
    assert (await failed(here, api(receiver.url()))).reason == "response_too_large"


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"x" * 1000)[:-9], b"not gzip", gzip.compress(b"x") + b"rest", gzip.compress(b"") * 101],
    ids=["truncated", "another format", "more behind it", "too many members"],  # a gzip holds the instant
)
async def test_damaged_gzip(receiver: Receiver, here: World, body: bytes) -> None:
    receiver.answers(encoded("gzip", body))
    again = await retried(here, api(receiver.url()))
    assert (again.reason, again.message) == ("bad_response", "the answer's gzip is damaged")


async def test_a_bomb_beside_an_error_does_not_hide_the_error(receiver: Receiver, here: World) -> None:
    packed = gzip.compress(b"\0" * 5_000_000)
    receiver.answers(status(404, "Content-Encoding: gzip\r\n", packed))
    failure = await failed(here, api(receiver.url()))
    assert failure.reason == "http_404"
    assert failure.message == "POST was answered with 404: (encoded as 'gzip', not shown)"


# ---------------------------------------------------------------- 2 brotli, 3 zstd, 4 stacked encodings


@pytest.mark.parametrize(
    ("encoding", "body", "says"),
    [
        pytest.param("br", b"\x0b\x02\x80hello\x03", "'br'; read are gzip, x-gzip, deflate", id="brotli"),
        pytest.param("zstd", ZSTD, "encoded as 'zstd'; read are", id="zstd"),
        pytest.param("compress", b"\x1f\x9d", "encoded as 'compress'; read are", id="compress"),
        pytest.param("gzip, gzip", gzip.compress(gzip.compress(b"a")), "encoded 2 times", id="stacked"),
        pytest.param("br, gzip", b"x", "encoded 2 times; one is read", id="stacked of two kinds"),
    ],
)  # fmt: skip
async def test_other_encodings(
    receiver: Receiver, here: World, encoding: str, body: bytes, says: str
) -> None:
    receiver.answers(encoded(encoding, body))
    failure = await failed(here, api(receiver.url()))
    assert failure.reason == "response_encoding"
    assert says in failure.message


async def test_stacked_encodings_on_two_lines(receiver: Receiver, here: World) -> None:
    body = gzip.compress(gzip.compress(b"a"))
    receiver.answers(encoded("gzip", body, "Content-Encoding: gzip\r\n"))
    assert "encoded 2 times" in (await failed(here, api(receiver.url()))).message


async def test_an_encoding_of_nothing_is_none(receiver: Receiver, here: World) -> None:
    receiver.answers(encoded("br", b""))
    assert (await done(here, api(receiver.url())))["body"] is None


# ---------------------------------------------------------------- 5 endless chunks, 9 1 GB


@pytest.mark.parametrize("answer", [receivers.endless_chunks, receivers.flood])
async def test_endless_chunks(receiver: Receiver, here: World, answer: Any) -> None:
    receiver.answers(answer)
    failure = await failed(here, api(receiver.url(), response_bytes_max=100_000))
    assert failure.reason == "response_too_large"
    assert failure.message == "the answer is longer than the response_bytes_max of 100000 bytes"


async def test_1_gb(receiver: Receiver, here: World) -> None:
    async def gigabyte(_call: Any, writer: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(10_000):
            writer.write(b"x" * 100_000)
            await writer.drain()

    receiver.answers(gigabyte)
    await done(here, api(receiver.url("/warm"), success_codes=[204]))
    tracemalloc.start()
    try:
        failure = await failed(here, api(receiver.url()))
        assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX
    finally:
        tracemalloc.stop()
    assert failure.reason == "response_too_large"


async def test_a_body_of_exactly_the_cap(receiver: Receiver, here: World) -> None:
    receiver.answers(status(200, body=b"x" * 1000), status(200, body=b"x" * 1001))
    step = api(receiver.url(), response_bytes_max=1000)
    assert (await done(here, step))["body"] == "x" * 1000
    assert (await failed(here, step)).reason == "response_too_large"


# ---------------------------------------------------------------- 6 drip, 7 short, 8 long


async def test_drip(receiver: Receiver, here: World) -> None:
    receiver.answers(receivers.drip)
    again = await retried(here, api(receiver.url(), timeout_s=0.3))
    assert (again.reason, again.message) == ("timeout", "the answer was not complete within 0.3 s")


async def test_short(receiver: Receiver, here: World) -> None:
    receiver.answers(receivers.short)
    again = await retried(here, api(receiver.url()))
    assert again.reason == "connection"
    assert again.message == "the connection ended before the answer was complete"


async def test_long(receiver: Receiver, here: World) -> None:
    receiver.answers(receivers.long, status(200, body=b"own"))
    assert (await done(here, api(receiver.url())))["body"] == "long"
    assert (await done(here, api(receiver.url())))["body"] == "own"


# ---------------------------------------------------------------- 10 header flood, 11 1xx storm


async def test_header_flood(receiver: Receiver, here: World) -> None:
    receiver.answers(receivers.header_flood)
    again = await retried(here, api(receiver.url()))
    assert (again.reason, again.message) == ("connection", "the answer is not valid HTTP")


async def test_1xx_storm(receiver: Receiver, here: World) -> None:
    receiver.answers(receivers.early_hints)
    again = await retried(here, api(receiver.url(), timeout_s=0.3))
    assert (again.reason, again.message) == ("timeout", "no answer within 0.3 s")


# ---------------------------------------------------------------- 12 non-UTF-8, 13 HTML as JSON, 14 deep JSON


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "text/plain; charset=klingon"])
async def test_non_utf_8(receiver: Receiver, here: World, content_type: str) -> None:
    receiver.answers(status(200, f"Content-Type: {content_type}\r\n", b'{"a": "\xff\xfe"}'))
    ended = await outcome(here, api(receiver.url()))
    assert isinstance(ended, Done)
    assert (ended.output["body"], ended.output["body_file"]) == (None, "call-response.bin")
    assert here.content(ended.files[0].key) == b'{"a": "\xff\xfe"}'


async def test_html_as_json(receiver: Receiver, here: World) -> None:
    receiver.answers(status(200, JSON, b"<!doctype html><p>Sorry"))
    assert (await done(here, api(receiver.url())))["body"] == "<!doctype html><p>Sorry"


@pytest.mark.parametrize("depth", [65, 900, 1_000, 15_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
async def test_deep_json(receiver: Receiver, here: World, depth: int, opening: str, closing: str) -> None:
    body = opening * depth + "1" + closing * depth
    receiver.answers(status(200, JSON, body.encode()))
    output = await done(here, api(receiver.url()))
    assert output["body"] == body or output["body_file"] == "call-response.txt"


async def test_deep_json_that_is_too_large_to_be_looked_at(receiver: Receiver, here: World) -> None:
    receiver.answers(status(200, JSON, b"[" * 500_000))
    assert (await done(here, api(receiver.url())))["body_file"] == "call-response.json"


@pytest.mark.parametrize(
    "text",
    [
        "NaN", "Infinity", "-Infinity", "1e400", '"\\ud800"', '{"\\udfff": 1}', '"a\\u0000b"', "9" * 5_000,
        "{a: 1}", "[1,]", "[" * 64 + "]" * 63, "01", '"\t"',
    ],
)  # fmt: skip
def test_json_that_not_every_reader_can_hold_is_text(text: str) -> None:
    body = answer.read(text.encode(), "application/json")
    assert (body.form, body.value) == ("text", text)


def test_json_within_the_limits_is_read() -> None:
    for text in ("[" * 60 + "]" * 60, '{"a": 1, "a": 2}', "9" * 19, "1e300", '"\\ud83d\\ude00"', " {} "):
        body = answer.read(text.encode(), "application/json")
        assert (body.form, body.value) == ("json", json.loads(text))


def test_a_nul_in_text_makes_it_bytes() -> None:
    assert answer.read(b"a\0b", "text/plain").form == "bytes"


def test_what_decompression_may_give_is_bounded_exactly() -> None:
    def unpacked(size: int) -> bytes:
        body = gzip.compress(b"x" * size)
        return answer.unpacked(Response(200, {"content-encoding": "gzip"}, body), 1000)

    assert len(unpacked(1000)) == 1000
    with pytest.raises(answer.Unreadable, match="more than 1000 bytes"):
        unpacked(1001)
    many = gzip.compress(b"") * 100
    assert answer.unpacked(Response(200, {"content-encoding": "gzip"}, many), 1000) == b""
