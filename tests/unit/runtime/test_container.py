"""Sealed files: what goes in comes out, in any range; whatever is done to the store is noticed (matrix I)."""

import hashlib
import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime import container
from services.runtime.blobs import BlobExists, BlobMissing, Blobs, in_memory
from services.runtime.container import COMPRESSIONS, Damaged, Files, KeyMissing, SealedFile

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
TENANT = "acme"
KEY = f"executions/acme/{'e' * 40}/export/aaaaaaaa-{'f' * 20}/report.csv"
OTHER = KEY.replace("report.csv", "reports-2.csv")
CHUNK = 64
CONTENT = bytes(random.Random(4).randrange(48, 58) for _ in range(300))


@pytest.fixture
def blobs() -> Blobs:
    return in_memory()


def files(blobs: Blobs, compression: str = "zstd", **keys: bytes) -> Files:
    return Files(blobs, keys or {"k1": OLD}, compression)


def seal(files: Files, content: bytes = CONTENT, key: str = KEY, chunk_bytes: int = CHUNK) -> None:
    with files.create(TENANT, key, chunk_bytes) as writer:
        writer.write(content)
        writer.finish()


def opened(files: Files, tenant: str = TENANT, key: str = KEY) -> bytes:
    return b"".join(files.open(tenant, key).read())


def stored(blobs: Blobs, key: str = KEY) -> bytes:
    return b"".join(blobs.read(key))


def replaced(blobs: Blobs, content: bytes, key: str = KEY) -> None:
    blobs.delete(key)
    with blobs.create(key) as writer:
        writer.write(content)
        writer.finish()


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 17])
def test_what_goes_in_comes_out(blobs: Blobs, compression: str, size: int) -> None:
    content = random.Random(size).randbytes(size)
    seal(files(blobs, compression), content)
    file = files(blobs).open(TENANT, KEY)
    assert (file.size, file.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert b"".join(file.read()) == content


@given(st.lists(st.binary(max_size=200), max_size=8), st.data())
def test_any_writes_and_any_range(writes: list[bytes], data: st.DataObject) -> None:
    blobs, content = in_memory(), b"".join(writes)
    with files(blobs).create(TENANT, KEY, CHUNK) as writer:
        for piece in writes:
            writer.write(memoryview(piece))
        writer.finish()
        assert (writer.bytes, writer.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    assert b"".join(files(blobs).open(TENANT, KEY).read(start, end)) == content[start:end]


@pytest.mark.parametrize("bounds", [(-1, 3), (4, 3), (0, 301), (301, None)])
def test_a_range_outside_the_file_is_refused(blobs: Blobs, bounds: tuple[int, int | None]) -> None:
    seal(files(blobs))
    with pytest.raises(ValueError, match="expected a range within 0 and 300"):
        files(blobs).open(TENANT, KEY).read(*bounds)


def test_an_index_longer_than_the_tail_is_read(blobs: Blobs) -> None:
    content = random.Random(1).randbytes(20_000)
    seal(files(blobs, "none"), content, chunk_bytes=1)
    assert b"".join(files(blobs).open(TENANT, KEY).read(9_999, 10_003)) == content[9_999:10_003]


def test_a_range_reads_only_the_chunks_that_hold_it(blobs: Blobs) -> None:
    asked: list[tuple[int, int]] = []

    class Counting:
        def size(self, key: str) -> int:
            return blobs.size(key)

        def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
            asked.append((start, blobs.size(key) if end is None else end))
            return blobs.read(key, start, end)

    seal(files(blobs, "none"), bytes(100 * 4096), chunk_bytes=4096)
    counting: Blobs = Counting()  # type: ignore[assignment]
    file = files(counting).open(TENANT, KEY)
    asked.clear()
    assert len(b"".join(file.read(4096, 4 * 4096))) == 3 * 4096
    ((start, end),) = asked
    assert end - start == 3 * (4096 + 16)


def test_compression_makes_files_smaller_and_each_file_says_which(blobs: Blobs) -> None:
    sizes = {}
    for compression in COMPRESSIONS:
        seal(files(blobs, compression), b"the same line\n" * 1000, f"a/{compression}", 4096)
        sizes[compression] = blobs.size(f"a/{compression}")
        assert opened(files(blobs, "none"), key=f"a/{compression}") == b"the same line\n" * 1000
    assert max(sizes["zstd"], sizes["gzip"]) * 5 < sizes["none"]


def test_nothing_of_the_content_or_the_keys_is_stored_in_the_clear(blobs: Blobs) -> None:
    seal(files(blobs, "none"), b"canary" * 50)
    held = stored(blobs)
    assert b"canary" not in held
    assert OLD not in held


def test_an_unfinished_file_is_never_seen(blobs: Blobs) -> None:
    with files(blobs).create(TENANT, KEY, CHUNK) as writer:
        writer.write(CONTENT)
    with pytest.raises(BlobMissing):
        files(blobs).open(TENANT, KEY)
    seal(files(blobs))
    with pytest.raises(BlobExists):
        files(blobs).create(TENANT, KEY)


# ---------------------------------------------------------------- keys


def test_old_keys_open_and_the_first_key_seals(blobs: Blobs) -> None:
    seal(files(blobs, k1=OLD))
    both = files(blobs, k2=NEW, k1=OLD)
    seal(both, key=OTHER)
    assert opened(both) == opened(files(blobs, k2=NEW), key=OTHER) == CONTENT


def test_a_rotation_under_load_cut_short_and_resumed(blobs: Blobs) -> None:
    """Rotating changes no stored byte: readers get both keys first, then writers. Between, both open all."""
    old_writer, both = files(blobs, k1=OLD), files(blobs, k1=OLD, k2=NEW)
    with old_writer.create(TENANT, KEY, CHUNK) as writer:
        writer.write(CONTENT[:100])
        seal(files(blobs, k2=NEW, k1=OLD), key=OTHER)
        writer.write(CONTENT[100:])
        writer.finish()
    assert opened(both) == opened(both, key=OTHER) == CONTENT
    # killed before the reader was restarted with both keys: a clear word, and no damage
    with pytest.raises(KeyMissing):
        opened(old_writer, key=OTHER)
    assert opened(both, key=OTHER) == CONTENT


def test_a_missing_key_is_named(blobs: Blobs) -> None:
    seal(files(blobs, k1=OLD))
    with pytest.raises(KeyMissing, match="sealed with key 'k1', which MILLSTREAM_FILES__KEYS does not hold"):
        opened(files(blobs, k2=NEW))


def test_two_key_sets_with_the_same_id(blobs: Blobs) -> None:
    seal(files(blobs, k1=OLD))
    with pytest.raises(Damaged, match="another key of that id"):
        opened(files(blobs, k1=NEW))


# ---------------------------------------------------------------- moved, changed, cut


def test_a_file_of_another_place_or_tenant_does_not_open(blobs: Blobs) -> None:
    seal(files(blobs))
    replaced(blobs, stored(blobs), OTHER)
    for tenant, key in ((TENANT, OTHER), ("other", KEY), ("", KEY)):
        with pytest.raises(Damaged, match="belongs to another tenant or key"):
            opened(files(blobs), tenant, key)


def test_chunks_cannot_change_places(blobs: Blobs) -> None:
    seal(files(blobs, "none"), bytes(4 * CHUNK))
    whole = stored(blobs)
    header, size = 16 + 2 + 60, CHUNK + 16
    first, second = whole[header : header + size], whole[header + size : header + 2 * size]
    replaced(blobs, whole[:header] + second + first + whole[header + 2 * size :])
    with pytest.raises(Damaged, match="chunk 0 was altered, cut or moved"):
        opened(files(blobs))


def test_chunks_of_another_file_under_the_same_key_do_not_open(blobs: Blobs) -> None:
    seal(files(blobs, "none"), bytes(4 * CHUNK))
    mine = stored(blobs)
    blobs.delete(KEY)
    seal(files(blobs, "none"), bytes(4 * CHUNK))
    theirs, at = stored(blobs), 16 + 2 + 60
    replaced(blobs, mine[:at] + theirs[at : at + CHUNK + 16] + mine[at + CHUNK + 16 :])
    with pytest.raises(Damaged):
        opened(files(blobs))


@pytest.mark.parametrize("size", [0, 100, 2 * CHUNK])
def test_any_flipped_bit_is_noticed(blobs: Blobs, size: int) -> None:
    seal(files(blobs), CONTENT[:size])
    whole = stored(blobs)
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 8)
        replaced(blobs, bytes(changed))
        with pytest.raises(container.ContainerError):
            opened(files(blobs))


def test_any_truncation_and_any_addition_is_noticed(blobs: Blobs) -> None:
    seal(files(blobs))
    whole = stored(blobs)
    for cut in [*(whole[:at] for at in range(1, len(whole))), whole + b"\0", whole[1:], whole + whole]:
        replaced(blobs, cut)
        with pytest.raises(Damaged):
            opened(files(blobs))


def test_a_cut_after_a_chunk_with_a_forged_end_is_noticed(blobs: Blobs) -> None:
    seal(files(blobs, "none"), bytes(4 * CHUNK))
    whole = stored(blobs)
    index, at = whole[-16 - 16 - 40 - 5 * 4 : -16], 78 + 2 * (CHUNK + 16)
    replaced(blobs, whole[:at] + index + struct.pack(">Q8s", at, container.END_MAGIC))
    with pytest.raises(Damaged, match="the index does not fit the file"):
        opened(files(blobs))


@pytest.mark.parametrize(("at", "value"), [(8, 2), (8, 0), (9, 3), (10, 0), (10, 2), (11, 0), (11, 33)])
def test_an_unknown_version_or_algorithm_is_refused(blobs: Blobs, at: int, value: int) -> None:
    seal(files(blobs))
    whole = bytearray(stored(blobs))
    whole[at] = value
    replaced(blobs, bytes(whole))
    with pytest.raises(Damaged, match="expected version 1 of the container"):
        opened(files(blobs))


def test_another_compression_of_the_header_is_refused(blobs: Blobs) -> None:
    seal(files(blobs, "zstd"))
    whole = bytearray(stored(blobs))
    whole[9] = COMPRESSIONS["none"]
    replaced(blobs, bytes(whole))
    with pytest.raises(Damaged, match="header was altered"):
        opened(files(blobs))


@pytest.mark.parametrize("plain", [b"", b"id\n1\n", b"id\n" * 100])
def test_a_plain_file_in_its_place_is_never_served(blobs: Blobs, plain: bytes) -> None:
    replaced(blobs, plain)
    with pytest.raises(Damaged, match="expected a sealed file"):
        opened(files(blobs))


def test_a_file_cut_after_it_was_opened_ends_with_an_error(blobs: Blobs) -> None:
    seal(files(blobs))
    file: SealedFile = files(blobs).open(TENANT, KEY)
    replaced(blobs, stored(blobs)[:200])
    with pytest.raises(Damaged, match="cut after it was opened"):
        b"".join(file.read())


@pytest.mark.slow
def test_ten_million_nonces_differ() -> None:
    """A nonce is a place of the file; the data key is new in each file."""
    last = b""
    for number in range(10_000_000):
        nonce = container._PLACE.pack(container._CHUNK, number)
        assert nonce > last
        last = nonce
    ends = {container._PLACE.pack(kind, 9_999_999) for kind in (container._LAST_CHUNK, container._INDEX)}
    assert len(ends) == 2 and min(ends) > last


def test_equal_files_share_no_bytes_but_the_head(blobs: Blobs) -> None:
    seal(files(blobs))
    one = stored(blobs)
    blobs.delete(KEY)
    seal(files(blobs))
    two = stored(blobs)
    assert one[:18] == two[:18]
    assert not {one[i : i + 16] for i in range(18, len(one) - 48)} & {
        two[i : i + 16] for i in range(18, len(two) - 48)
    }
