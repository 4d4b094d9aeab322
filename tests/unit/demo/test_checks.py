"""The demo's own checks, given bytes that somebody changed."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from examples.demo.compare import MANIFEST, Content, check_manifest, content_of
from examples.demo.failure import Failed
from examples.demo.webhook import Expected, Received, received, verify
from services.runtime.entropy import LocalClock

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ID = "e" * 40
EXPECTED = Expected(ID, 17, 336_776)


def request(**changes: object) -> Received:
    """A webhook as the notifier sends it."""
    event = {"type": "execution.completed", "subject": ID, "data": {"files": 17, "rows": 336_776}, **changes}
    body = json.dumps(event).encode()
    now = LocalClock().now()
    headers = {
        "webhook-id": "id",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("id", now, body.decode()),
    }
    return Received(headers, body)


def test_a_good_webhook_passes() -> None:
    assert verify(request(), SECRET, EXPECTED)["subject"] == ID


def test_every_flipped_byte_of_the_body_is_found() -> None:
    good = request()
    for at in range(len(good.body)):
        for bit in (1, 0x80):
            body = bytearray(good.body)
            body[at] ^= bit
            with pytest.raises(Failed, match="signature"):
                verify(replace(good, body=bytes(body)), SECRET, EXPECTED)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("change", [lambda text: "", lambda text: text[:-2] + "!!", lambda text: text[1:]])
def test_altered_headers_are_found(name: str, change: Callable[[str], str]) -> None:
    good = request()
    headers = good.headers | {name: change(good.headers[name])}
    with pytest.raises(Failed, match="signature"):
        verify(replace(good, headers=headers), SECRET, EXPECTED)


def test_an_old_webhook_is_refused() -> None:
    good = request()
    headers = good.headers | {"webhook-timestamp": str(int(good.headers["webhook-timestamp"]) - 3600)}
    with pytest.raises(Failed, match="too old"):
        verify(replace(good, headers=headers), SECRET, EXPECTED)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "execution.failed"},
        {"subject": "f" * 40},
        {"data": {"files": 17, "rows": 336_775}},
        {"data": {}},
    ],
)
def test_a_signed_webhook_about_something_else_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Failed, match="expected"):
        verify(request(**changes), SECRET, EXPECTED)


def test_a_half_written_record_is_not_read(tmp_path: Path) -> None:
    record = tmp_path / "received.jsonl"
    assert received(record) == []
    line = json.dumps({"headers": {"a": "b"}, "body": base64.b64encode(b"x").decode()})
    record.write_text(line[:20])
    assert received(record) == []
    record.write_text(f"{line}\n{line[:20]}")
    assert received(record) == [Received({"a": "b"}, b"x")]


def test_content_counts_rows_and_hashes_every_byte() -> None:
    content = content_of(io.BytesIO(b"a,b\n1,2\n3,4\n"))
    assert (content.rows, content.bytes) == (2, 12)
    assert content.sha256 != content_of(io.BytesIO(b"a,b\n1,2\n3,5\n")).sha256
    assert content_of(io.BytesIO(b"")).rows == 0


def test_the_manifest_must_name_the_same_files(tmp_path: Path) -> None:
    entry = {"name": "reports-AA.csv", "rows": 1, "bytes": 2, "sha256": "ab"}
    (tmp_path / MANIFEST).write_text(json.dumps({"files": [entry]}))
    check_manifest(tmp_path, {"reports-AA.csv": Content(1, 2, "ab")})
    for contents in ({}, {"reports-AA.csv": Content(1, 2, "ac")}, {"reports-AS.csv": Content(1, 2, "ab")}):
        with pytest.raises(Failed, match=r"manifest\.json"):
            check_manifest(tmp_path, contents)
