"""Files by signed links: the 22 cases of matrix H, ranges, the access log, and damage in the store."""

import hashlib
import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from services.api.core.links import LIFE_S_MAX, Links
from services.runtime.entropy import LocalClock
from tests.serving import LINK_KEYS, TTL_S, Api, serving
from tests.stack import Stack

pytestmark = pytest.mark.postgres

NAME = "reports-AA.csv"
CONTENT = random.Random(1).randbytes(2_500_000)
"""Two chunks and a half."""
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def link(api: Api, client: httpx.Client) -> httpx.URL:
    """A good link."""
    return published(api, client, NAME)


def published(api: Api, client: httpx.Client, name: str, content: bytes = CONTENT) -> httpx.URL:
    (file,) = api.publish_file(client, name, content)["files"]
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    return httpx.URL(file["url"])


def execution_of(link: httpx.URL) -> str:
    return link.path.split("/")[2]


def fresh_link(client: httpx.Client, link: httpx.URL) -> httpx.URL:
    """The link that the execution shows now."""
    (file,) = client.get(f"/v1/executions/{execution_of(link)}").json()["files"]
    return httpx.URL(file["url"])


# ---------------------------------------------------------------- what a good link gives


def test_a_link_opens_its_file_without_a_key(anonymous: httpx.Client, link: httpx.URL) -> None:
    answer = anonymous.get(link)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert answer.headers["content-disposition"] == f'attachment; filename="{NAME}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"].startswith("text/csv")


def test_head_tells_without_the_bytes(anonymous: httpx.Client, link: httpx.URL) -> None:
    answer = anonymous.head(link, headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(SIZE)


def test_links_are_made_at_read_time(client: httpx.Client, link: httpx.URL) -> None:
    (file,) = client.get(f"/v1/executions/{execution_of(link)}").json()["files"]
    assert file["expires_at"] > LocalClock().now().isoformat()
    assert int(fresh_link(client, link).params["expires"]) >= int(link.params["expires"])


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=1048575-1048576", 1_048_575, 1_048_577),
        ("bytes=2000000-", 2_000_000, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        ("bytes=-99999999", 0, SIZE),
        ("bytes=10-99999999", 10, SIZE),
        ("Bytes=5-9", 5, 10),
    ],
)
def test_one_range(anonymous: httpx.Client, link: httpx.URL, asked: str, start: int, end: int) -> None:
    answer = anonymous.get(link, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("asked", ["bytes=2500000-", "bytes=9999999-99999999", "bytes=-0"])
def test_a_range_behind_the_end(anonymous: httpx.Client, link: httpx.URL, asked: str) -> None:
    answer = anonymous.get(link, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "lines=0-1", "bytes=", "bytes=-", "bytes=9-5", "bytes=a-b", "bytes=1-2-3"]
)
def test_other_ranges_are_unheeded(anonymous: httpx.Client, link: httpx.URL, asked: str) -> None:
    answer = anonymous.get(link, headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


def test_if_range_resumes_only_the_same_file(anonymous: httpx.Client, link: httpx.URL) -> None:
    etag = anonymous.head(link).headers["etag"]
    for condition, status in ((etag, 206), (f"W/{etag}", 200), ('"other"', 200), ("Sat, 01 Jan 2026", 200)):
        answer = anonymous.get(link, headers={"Range": "bytes=1-2", "If-Range": condition})
        assert answer.status_code == status, condition


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_the_client_has_is_not_sent_again(
    anonymous: httpx.Client, link: httpx.URL, method: str
) -> None:
    etag = anonymous.head(link).headers["etag"]
    for tags, status in ((etag, 304), (f'"other", W/{etag}', 304), ("*", 304), ('"other"', 200)):
        answer = anonymous.request(method, link, headers={"If-None-Match": tags, "Range": "bytes=0-9"})
        assert answer.status_code == (206 if (status, method) == (200, "GET") else status), tags
        assert answer.headers["etag"] == etag
        assert (status == 304) <= (answer.content == b"")


# ---------------------------------------------------------------- matrix H


def forged(link: httpx.URL, **changes: str) -> str:
    """The link signed anew, by another tenant's name or another key."""
    tenant, key_id = changes.get("tenant", "acme"), changes.get("key_id", "l1")
    secret = LINK_KEYS["l1"] if changes.get("secret") == "ours" else bytes(32)
    now_s = int(link.params["expires"]) - TTL_S
    return Links({key_id: secret}, TTL_S).link(tenant, execution_of(link), NAME, now_s)[0]


def replaced(link: httpx.URL, name: str, value: str) -> str:
    return str(link).replace(f"{name}={link.params[name]}", f"{name}={value}")


def other_links(link: httpx.URL) -> dict[str, str]:
    text, expires, signature = str(link), int(link.params["expires"]), link.params["sig"]
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    return {
        "changed tenant": forged(link, tenant="other", secret="ours"),
        "changed job": text.replace(execution_of(link), "0" * 40),
        "changed file": text.replace(NAME, "reports-9E.csv"),
        "changed expiry": replaced(link, "expires", str(expires - 1)),
        "changed key id": replaced(link, "kid", "l0"),
        "cut signature": replaced(link, "sig", signature[:-1]),
        "empty signature": replaced(link, "sig", ""),
        "flipped signature": replaced(link, "sig", flipped),
        "padded signature": replaced(link, "sig", f"{signature}="),
        "extended": replaced(link, "expires", str(expires + 1)),
        "expiry respelled": replaced(link, "expires", f"0{expires}"),
        "key unknown": replaced(link, "kid", "l9"),
        "key retired": forged(link, key_id="l7", secret="ours"),
        "key of the future": forged(link, key_id="l2", secret="ours"),
        "other environment's key": forged(link),
        "doubled parameters": f"{text}&sig={signature}",
        "added parameter": f"{text}&x=1",
        "reordered parameters": f"{link.path}?kid={link.params['kid']}&expires={expires}&sig={signature}",
        "re-encoded path": text.replace("reports", "%72eports"),
        "doubled path": text.replace("/files/", "/files//"),
        "no query": link.path,
    }


@pytest.mark.parametrize(
    "name", list(other_links(httpx.URL(f"/files/{'1' * 40}/{NAME}?expires=9&kid=l1&sig=QQQ")))
)
def test_any_other_link_is_not_found(anonymous: httpx.Client, link: httpx.URL, name: str) -> None:
    changed = other_links(link)[name]
    missing = anonymous.get(f"/files/{'2' * 40}/x.csv")
    for headers in ({}, {"Range": "bytes=0-9"}, {"Range": "bytes=99999999-"}):
        answer = anonymous.get(changed, headers=headers)
        assert (answer.status_code, answer.content) == (404, missing.content)
    assert anonymous.head(changed).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_is_not_found(anonymous: httpx.Client, link: httpx.URL, method: str) -> None:
    assert anonymous.request(method, link).status_code == 404


class Fixed:
    """A clock that stands."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


def test_the_second_of_expiry_on_a_node_whose_own_clock_is_wrong(stack: Stack, tmp_path: Path) -> None:
    """The clock that all api processes share decides; this machine's is an hour ahead of it."""
    clock = Fixed(LocalClock().now().replace(microsecond=0) - timedelta(hours=1))
    with serving(stack.fresh_database(), tmp_path, clock=clock) as api, api.client() as client:
        link = published(api, client, NAME, b"x")
        made = clock.at
        assert client.get(link).status_code == 200
        clock.at = made + timedelta(seconds=TTL_S - 1)
        assert client.get(link).status_code == 200
        clock.at = made + timedelta(seconds=TTL_S)
        assert client.get(link).status_code == 404


def test_no_link_lives_longer_than_a_week(anonymous: httpx.Client, link: httpx.URL) -> None:
    now = int(LocalClock().now().timestamp())
    for life_s, status in ((LIFE_S_MAX - 60, 200), (LIFE_S_MAX + 60, 404), (45 * 365 * 86_400, 404)):
        long = Links(LINK_KEYS, life_s).link("acme", execution_of(link), NAME, now)[0]
        assert anonymous.get(long).status_code == status, life_s


def test_an_older_key_still_opens(anonymous: httpx.Client, link: httpx.URL) -> None:
    now = int(LocalClock().now().timestamp())
    older = Links({"l0": LINK_KEYS["l0"]}, TTL_S).link("acme", execution_of(link), NAME, now)[0]
    assert anonymous.get(older).status_code == 200


def test_revoked_links_are_void_and_new_ones_open(
    api: Api, client: httpx.Client, anonymous: httpx.Client
) -> None:
    link = published(api, client, "revoked.csv", b"x")
    path = f"/v1/executions/{execution_of(link)}/files/revoked.csv/revoke-links"
    with api.client(api.key("author", tenant="other")) as other, api.client(api.key("viewer")) as viewer:
        assert other.post(path).status_code == 404
        assert viewer.post(path).status_code == 403
    assert anonymous.get(link).status_code == 200
    assert client.post(path).status_code == 204
    assert anonymous.get(link).status_code == 404
    assert anonymous.get(fresh_link(client, link)).status_code == 200
    assert client.post(path.replace("revoked.csv", "none.csv")).status_code == 404


def test_links_of_a_deleted_job_are_void(api: Api, client: httpx.Client, anonymous: httpx.Client) -> None:
    link = published(api, client, "deleted.csv", b"x")
    with api.cursor() as cursor:
        cursor.execute("DELETE FROM api.job_request WHERE execution_id = %s", (execution_of(link),))
    assert anonymous.get(link).status_code == 404


@pytest.mark.parametrize("column", ["revoked_at", "expires_at"])
def test_links_end_with_the_last_key_of_their_owner(api: Api, anonymous: httpx.Client, column: str) -> None:
    keys = [api.key(principal=f"leaver-{column}") for _ in range(2)]
    with api.client(keys[0]) as leaver:
        link = published(api, leaver, "left.csv", b"x")
    for key, status in zip(keys, (200, 404), strict=True):
        with api.cursor() as cursor:
            cursor.execute(
                f"UPDATE api.api_key SET {column} = now() WHERE prefix = %s",
                (key.split("_")[1],),
            )
        assert anonymous.get(link).status_code == status


# ---------------------------------------------------------------- what is remembered


def accesses(api: Api, link: httpx.URL) -> list[tuple[Any, ...]]:
    return api.rows(
        "SELECT method, status, first_byte, last_byte, key_id, client, tenant FROM api.file_access"
        " WHERE execution_id = %s ORDER BY id",
        execution_of(link),
    )


def test_every_access_is_remembered_and_the_signature_nowhere(
    api: Api, client: httpx.Client, anonymous: httpx.Client
) -> None:
    link = published(api, client, "watched.csv", b"0123456789")
    with structlog.testing.capture_logs() as lines:
        anonymous.get(link)
        anonymous.head(link)
        anonymous.get(link, headers={"Range": "bytes=2-3"})
        anonymous.get(link, headers={"Range": "bytes=10-"})
        anonymous.get(replaced(link, "expires", "1"))
    assert accesses(api, link) == [
        ("GET", 200, 0, 9, "l1", "127.0.0.1", "acme"),
        ("HEAD", 200, 0, 9, "l1", "127.0.0.1", "acme"),
        ("GET", 206, 2, 3, "l1", "127.0.0.1", "acme"),
        ("GET", 416, None, None, "l1", "127.0.0.1", "acme"),
    ]
    assert [line["event"] for line in lines] == ["file_read"] * 4 + ["file_refused"]
    signature = link.params["sig"]
    assert signature not in str(lines)
    for (table,) in api.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'api'"):
        assert signature not in str(api.rows(f"SELECT t::text FROM api.{table} AS t"))


# ---------------------------------------------------------------- damage


def damaged(api: Api, client: httpx.Client, name: str, content: bytes, at: int) -> httpx.URL:
    """A published file of which one stored byte was changed."""
    link = published(api, client, name, content)
    (key,) = api.rows("SELECT blob_key FROM api.file WHERE name = %s", name)[0]
    stored = bytearray(b"".join(api.parts.blobs.read(key)))
    stored[at] ^= 1
    api.parts.blobs.delete(key)
    with api.parts.blobs.create(key) as writer:
        writer.write(bytes(stored))
        writer.finish()
    return link


@pytest.mark.parametrize("at", [0, 12, 40, 100, -1, -10, -40])
def test_a_damaged_file_is_not_found(
    api: Api, client: httpx.Client, anonymous: httpx.Client, at: int
) -> None:
    link = damaged(api, client, f"damaged{at}.csv", b"0123456789" * 50, at)
    with structlog.testing.capture_logs() as lines:
        assert anonymous.get(link).status_code == 404
    assert [line["event"] for line in lines] == ["file_damaged"]


def test_damage_in_the_middle_is_never_taken_for_the_whole(
    api: Api, client: httpx.Client, anonymous: httpx.Client
) -> None:
    link = damaged(api, client, "middle.csv", CONTENT, 1_500_000)
    with pytest.raises(httpx.RemoteProtocolError):
        anonymous.get(link)
    assert anonymous.get(link, headers={"Range": "bytes=0-9"}).content == CONTENT[:10]


def test_a_file_that_is_gone_or_plain_is_not_found(
    api: Api, client: httpx.Client, anonymous: httpx.Client
) -> None:
    link = published(api, client, "gone.csv", b"plain\n" * 50)
    (key,) = api.rows("SELECT blob_key FROM api.file WHERE name = 'gone.csv'")[0]
    api.parts.blobs.delete(key)
    assert anonymous.get(link).status_code == 404
    with api.parts.blobs.create(key) as writer:
        writer.write(b"plain\n" * 50)
        writer.finish()
    assert anonymous.get(link).status_code == 404
