"""One suite over every body of the blob store."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from services.runtime import blobs
from services.runtime.blobs import BlobExists, BlobInfo, BlobMissing, Blobs, BlobsUnavailable
from tests.waiting import joined

KEY = "executions/team@acme/0a1b/export/00000000-11111111/reports-UA.csv"
LARGE = bytes(range(256)) * (80 * 1024)  # 20 MiB: beyond what a writer keeps in memory


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "memory":
        return blobs.in_memory()
    return blobs.connect(f"file://{tmp_path}/made on demand/blobs".replace(" ", "%20"))


def put(store: Blobs, key: str, *pieces: bytes) -> None:
    with store.create(key) as writer:
        for piece in pieces:
            assert writer.write(piece) == len(piece)
        writer.finish()


def get(store: Blobs, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(store.read(key, start, end))


@pytest.mark.parametrize("content", [b"", b"a", b"a,b\r\n", LARGE], ids=["empty", "one", "line", "20 MiB"])
def test_a_finished_file_is_read_as_written(store: Blobs, content: bytes) -> None:
    put(store, KEY, content[:7], content[7:])
    assert store.exists(KEY)
    assert store.size(KEY) == len(content)
    assert get(store, KEY) == content
    assert [*store.list("executions/team@acme")] == [BlobInfo(KEY, len(content))]


def test_a_large_file_comes_in_small_pieces(store: Blobs) -> None:
    put(store, KEY, LARGE)
    assert max(map(len, store.read(KEY))) <= blobs.CHUNK_BYTES


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, None), (3, 7), (9, 10), (10, 10), (0, 0), (10, None)])
def test_a_range_is_read(store: Blobs, start: int, end: int | None) -> None:
    put(store, KEY, b"0123456789")
    assert get(store, KEY, start, end) == b"0123456789"[start:end]


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 11), (11, None)])
def test_a_range_outside_the_file_is_refused(store: Blobs, start: int, end: int | None) -> None:
    put(store, KEY, b"0123456789")
    with pytest.raises(ValueError, match="within 0 and 10"):
        store.read(KEY, start, end)


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "20 MiB"])
def test_an_unfinished_file_is_never_visible(store: Blobs, content: bytes) -> None:
    with store.create(KEY) as writer:
        writer.write(content)
        assert not store.exists(KEY)
        assert [*store.list("executions")] == []
    assert not store.exists(KEY)
    assert [*store.list("executions")] == []
    put(store, KEY, b"again")
    assert get(store, KEY) == b"again"


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "20 MiB"])
def test_a_file_whose_writing_raises_is_never_visible(store: Blobs, content: bytes) -> None:
    def fail_midway() -> None:
        with store.create(KEY) as writer:
            writer.write(content)
            raise KeyError

    with pytest.raises(KeyError):
        fail_midway()
    assert not store.exists(KEY)


def test_a_key_is_written_once(store: Blobs) -> None:
    put(store, KEY, b"first")
    with pytest.raises(BlobExists):
        store.create(KEY)
    assert get(store, KEY) == b"first"


def test_of_two_writers_of_one_key_one_wins(store: Blobs) -> None:
    with store.create(KEY) as first, store.create(KEY) as second:
        first.write(b"first")
        second.write(b"second")
        second.finish()
        with pytest.raises(BlobExists):
            first.finish()
    assert get(store, KEY) == b"second"


def test_what_is_missing_is_told(store: Blobs) -> None:
    assert not store.exists(KEY)
    assert [*store.list("executions/team@acme")] == []
    for attempt in (lambda: store.size(KEY), lambda: store.read(KEY)):
        with pytest.raises(BlobMissing):
            attempt()


def test_delete_is_idempotent(store: Blobs) -> None:
    put(store, KEY, b"x")
    store.delete(KEY)
    store.delete(KEY)
    assert not store.exists(KEY)


def test_a_listing_holds_whole_segments_only(store: Blobs) -> None:
    for key in ("executions/a/1", "executions/a/2", "executions/ab/1"):
        put(store, key, key.encode())
    assert {blob.key for blob in store.list("executions/a")} == {"executions/a/1", "executions/a/2"}


BAD_KEYS = {
    "parent": "executions/../secret",
    "parent first": "../x",
    "encoded parent is no letter": "executions/..%2fsecret",
    "double encoded": "executions/%252e%252e/x",
    "backslash": "executions\\..\\x",
    "full width dots": "executions/．．/x",
    "absolute": "/etc/passwd",
    "drive": "C:/x",
    "unc": "//server/share",
    "nul": "executions/a\0b",
    "newline": "executions/a\nb",
    "newline at the end": "executions/a\n",
    "empty": "",
    "dot": "executions/./x",
    "leading dot": "executions/.hidden",
    "unfinished folder": ".unfinished/x",
    "empty segment": "executions//x",
    "trailing slash": "executions/",
    "space": "executions/a b",
    "composed": "executions/é",
    "decomposed": "executions/e\u0301",
    "256 bytes": "executions/" + "a" * 256,
    "5,000 bytes": "a/" * 2500 + "a",
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_key_of_another_form_is_refused(store: Blobs, key: str) -> None:
    attempts: tuple[Callable[[], object], ...] = (
        lambda: store.create(key),
        lambda: store.read(key),
        lambda: store.size(key),
        lambda: store.delete(key),
        lambda: [*store.list(key)],
    )
    for attempt in attempts:
        with pytest.raises(ValueError, match="expected a blob key"):
            attempt()


def test_writers_in_several_threads_do_not_disturb_each_other(store: Blobs) -> None:
    def write(number: int) -> None:
        put(store, f"executions/a/{number}", bytes([number]) * 100_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        joined(thread)
    assert all(get(store, f"executions/a/{n}") == bytes([n]) * 100_000 for n in range(8))


# ---------------------------------------------------------------- the folder alone


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("canary")
    store = blobs.connect(f"file://{tmp_path}/blobs")
    (tmp_path / "blobs/linked").symlink_to(secret)
    (tmp_path / "blobs/direct").symlink_to(secret / "file")
    for key in ("linked/file", "direct"):
        with pytest.raises(BlobMissing):
            store.read(key)


def test_the_folder_holds_nothing_unfinished_after_an_abandoned_file(tmp_path: Path) -> None:
    store = blobs.connect(f"file://{tmp_path}")
    with store.create(KEY) as writer:
        writer.write(b"x")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_a_killed_writer_left_is_swept_and_no_other_file(tmp_path: Path) -> None:
    with blobs.connect(f"file://{tmp_path}").create(KEY) as writer:
        left, fresh = tmp_path / ".unfinished/left", tmp_path / ".unfinished/fresh"
        for path in (left, fresh):
            path.write_bytes(b"half a file")
        for path in (tmp_path / ".unfinished").iterdir():
            if path != fresh:
                os.utime(path, (0, 0))
        blobs.connect(f"file://{tmp_path}")
        assert not left.exists()
        assert fresh.exists()
        writer.write(b"whole")
        writer.finish()
    assert get(blobs.connect(f"file://{tmp_path}"), KEY) == b"whole"


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BlobsUnavailable, match="NotADirectoryError"):
        blobs.connect(f"file://{tmp_path}/file/blobs")
