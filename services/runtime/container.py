"""Sealed files: what lies in the blob store is compressed and encrypted in chunks that open one by one.

docs/sealed-files.md describes every byte. Each file has a data key of its own, wrapped by a master key with
an id; chunks, index and wrapping are bound to the tenant, the blob key and their own place, so that nothing
can be changed, cut, exchanged or moved without being noticed. One pass writes a file; any range of it is
read by opening the chunks that hold it. Memory is a few chunks, whatever the size.
"""

import hashlib
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.runtime import entropy
from services.runtime.blobs import Blobs, Writer

CHUNK_BYTES = 1 << 20
CHUNK_BYTES_MAX = 16 << 20
MAGIC = b"MILLSEAL"
END_MAGIC = b"LAESLLIM"
VERSION = 1
AES_256_GCM = 1
COMPRESSIONS: Mapping[str, int] = {"none": 0, "zstd": 1, "gzip": 2}

_HEAD = struct.Struct(">8sBBBBI")  # magic, version, compression, cipher, length of the key id, chunk bytes
_PLACE = struct.Struct(">IQ")  # kind, number: the nonce
_TOTALS = struct.Struct(">Q32s")  # plain bytes, SHA-256 of them
_END = struct.Struct(">Q8s")  # where the index begins, magic
_CHUNK, _LAST_CHUNK, _INDEX = 0, 1, 2
_KEY_ID_BYTES_MAX = 32
_NONCE_BYTES, _KEY_BYTES, _TAG_BYTES = 12, 32, 16
_WRAPPED_BYTES = _NONCE_BYTES + _KEY_BYTES + _TAG_BYTES
_HEADER_BYTES_MAX = _HEAD.size + _KEY_ID_BYTES_MAX + _WRAPPED_BYTES
_GZIP = 31  # zlib's word for a gzip frame
_TAIL_BYTES = 64 * 1024  # enough for the index of 16 GB

Bytes = bytes | bytearray | memoryview
Codec = Callable[[Bytes], Bytes]


class ContainerError(Exception):
    """A stored file does not open; trying again does not help. The message holds no content and no key."""


class KeyMissing(ContainerError):
    """The file was sealed with a master key that this process does not have."""


class Damaged(ContainerError):
    """The file is no container, or was altered, cut, or moved from another tenant or key."""


class Files:
    """Sealed files over a blob store; safe from any thread."""

    def __init__(self, blobs: Blobs, keys: Mapping[str, bytes], compression: str = "zstd") -> None:
        """`keys`: key id -> 32 bytes, of MILLSTREAM_FILES__KEYS: the first seals, all open. `compression` is
        a key of COMPRESSIONS and concerns new files only: each file says how it was written."""
        self._blobs = blobs
        self._masters = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = next(iter(keys))
        self._compression = compression

    def create(self, tenant: str, key: str, chunk_bytes: int = CHUNK_BYTES) -> "SealedWriter":
        """Begin a new file. Raises BlobExists and BlobsUnavailable."""
        context = _context(tenant, key)
        key_id = self._current.encode()
        codes = (VERSION, COMPRESSIONS[self._compression], AES_256_GCM)
        head = _HEAD.pack(MAGIC, *codes, len(key_id), chunk_bytes) + key_id
        data_key, nonce = entropy.token(_KEY_BYTES), entropy.token(_NONCE_BYTES)
        wrapped = self._masters[self._current].encrypt(nonce, data_key, head + context)
        compress = _compressor(self._compression)
        writer = self._blobs.create(key)
        return SealedWriter(writer, head + nonce + wrapped, _Chunks(data_key, context), compress, chunk_bytes)

    def open(self, tenant: str, key: str) -> "SealedFile":
        """A file to read from. Raises BlobMissing, BlobsUnavailable, KeyMissing and Damaged."""
        size = self._blobs.size(key)
        if size < _HEAD.size + _WRAPPED_BYTES + _END.size:
            raise Damaged(f"{key}: expected a sealed file, found {size} bytes")
        tail_at = max(0, size - _TAIL_BYTES)
        tail = self._piece(key, tail_at, size)
        head = tail if tail_at == 0 else self._piece(key, 0, min(size, _HEADER_BYTES_MAX))
        data_key, header = self._unwrap(head, _context(tenant, key), key)
        index_at, magic = _END.unpack(tail[-_END.size :])
        if magic != END_MAGIC or not header.bytes <= index_at <= size - _END.size:
            raise Damaged(f"{key}: the end is missing: the file was cut")
        index_end = size - _END.size
        index = (
            tail[index_at - tail_at : -_END.size]
            if index_at >= tail_at
            else self._piece(key, index_at, index_end)
        )
        return SealedFile(self._blobs, key, _Chunks(data_key, _context(tenant, key)), header, index, index_at)

    def _piece(self, key: str, start: int, end: int) -> bytes:
        return b"".join(self._blobs.read(key, start, end))

    def _unwrap(self, head: bytes, context: bytes, key: str) -> tuple[bytes, "_Header"]:
        magic, version, compression, cipher, id_bytes, chunk_bytes = _HEAD.unpack_from(head)
        if magic != MAGIC:
            raise Damaged(f"{key}: expected a sealed file, found another form; plain files are never served")
        at = _HEAD.size + id_bytes
        known = version == VERSION and cipher == AES_256_GCM and compression in COMPRESSIONS.values()
        fits = 1 <= id_bytes <= _KEY_ID_BYTES_MAX and 1 <= chunk_bytes <= CHUNK_BYTES_MAX
        if not known or not fits or len(head) < at + _WRAPPED_BYTES:
            raise Damaged(
                f"{key}: expected version {VERSION} of the container, found another or a damaged one"
            )
        key_id = head[_HEAD.size : at].decode("ascii", "replace")
        master = self._masters.get(key_id)
        if master is None:
            raise KeyMissing(
                f"{key}: sealed with key {key_id!r}, which MILLSTREAM_FILES__KEYS does not hold; add that key"
                " behind the first one"
            )
        nonce, wrapped = head[at : at + _NONCE_BYTES], head[at + _NONCE_BYTES : at + _WRAPPED_BYTES]
        try:
            data_key = master.decrypt(nonce, wrapped, head[:at] + context)
        except InvalidTag:
            raise Damaged(
                f"{key}: the header was altered, belongs to another tenant or key, or key {key_id!r} is"
                " another key of that id"
            ) from None
        name = next(name for name, code in COMPRESSIONS.items() if code == compression)
        return data_key, _Header(name, chunk_bytes, at + _WRAPPED_BYTES)


class SealedWriter:
    """A blobs.Writer whose file is sealed. Leaving its `with` block without `finish` throws it away.

    `bytes` and `sha256` are those of what was written, not of what is stored.
    """

    def __init__(
        self, writer: Writer, header: bytes, chunks: "_Chunks", compress: Codec, chunk_bytes: int
    ) -> None:
        self._writer = writer
        self._header = header
        self._chunks = chunks
        self._compress = compress
        self._chunk_bytes = chunk_bytes
        self._rest = bytearray()
        self._lengths = array("I")
        self._stored = 0
        self._hash = hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Of everything written so far, in hex."""
        return self._hash.hexdigest()

    def write(self, data: Bytes) -> int:
        """Append bytes; each full chunk goes to the store at once. Raises BlobsUnavailable."""
        self._hash.update(data)
        self.bytes += len(data)
        view = memoryview(data)
        at = 0
        while len(self._rest) + len(view) - at >= self._chunk_bytes:
            taken = self._chunk_bytes - len(self._rest)
            piece = view[at : at + taken]
            at += taken
            # A caller that writes whole chunks is spared a copy.
            self._seal(_CHUNK, self._rest + piece if self._rest else piece)
            self._rest.clear()
        self._rest += view[at:]
        return len(data)

    def finish(self) -> None:
        """Write what is left and the index; the file is visible then. Raises BlobExists, BlobsUnavailable."""
        self._seal(_LAST_CHUNK, self._rest)
        index = _TOTALS.pack(self.bytes, self._hash.digest()) + _big_endian(self._lengths).tobytes()
        index_at = self._stored
        self._put(self._chunks.seal(_INDEX, len(self._lengths), index))
        self._put(_END.pack(index_at, END_MAGIC))
        self._writer.finish()

    def _seal(self, kind: int, plain: Bytes) -> None:
        if self._stored == 0:
            self._put(self._header)
        sealed = self._chunks.seal(kind, len(self._lengths), self._compress(plain))
        self._lengths.append(len(sealed))
        self._put(sealed)

    def _put(self, data: bytes) -> None:
        self._writer.write(data)
        self._stored += len(data)

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


class SealedFile:
    """An opened file: `size` and `sha256` are those of its plain bytes."""

    def __init__(
        self, blobs: Blobs, key: str, chunks: "_Chunks", header: "_Header", index: bytes, index_at: int
    ) -> None:
        self._blobs = blobs
        self._key = key
        self._chunks = chunks
        self._header = header
        count = (len(index) - _TOTALS.size - _TAG_BYTES) // 4
        plain = self._opened(_INDEX, count, index)
        self.size, digest = _TOTALS.unpack_from(plain)
        self.sha256 = digest.hex()
        lengths = _big_endian(array("I", plain[_TOTALS.size :]))
        self._offsets = array("Q", accumulate(lengths, initial=header.bytes))
        if len(lengths) != self.size // header.chunk_bytes + 1 or self._offsets[-1] != index_at:
            raise Damaged(f"{key}: the index does not fit the file")

    def read(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The plain bytes from `start` up to, not including, `end` (None: to the end), a chunk at a time.

        Raises ValueError unless 0 <= start <= end <= size, at once; BlobMissing, BlobsUnavailable and
        Damaged while it is read, each before any byte of the chunk concerned.
        """
        end = self.size if end is None else end
        if not 0 <= start <= end <= self.size:
            raise ValueError(
                f"{self._key}: expected a range within 0 and {self.size}, found {start} to {end}"
            )
        return self._plain(start, end)

    def _plain(self, start: int, end: int) -> Iterator[bytes]:
        size = self._header.chunk_bytes
        first = start // size
        last = end // size if end == self.size else max(first, (end - 1) // size)
        sealed = self._sealed(first, last)
        for number in range(first, last + 1):
            plain = self._chunk(number, next(sealed))
            piece = plain[max(0, start - number * size) : end - number * size]
            if piece:
                yield piece
            del plain, piece  # a reader may stay with each for long: two of them are not kept

    def _chunk(self, number: int, sealed: bytes) -> bytes:
        is_last = number == len(self._offsets) - 2
        packed = self._opened(_LAST_CHUNK if is_last else _CHUNK, number, sealed)
        expected = self.size % self._header.chunk_bytes if is_last else self._header.chunk_bytes
        plain = _decompress(self._header.compression, packed, expected + 1)
        if len(plain) != expected:
            raise Damaged(f"{self._key}: chunk {number} has {len(plain)} bytes instead of {expected}")
        return plain

    def _sealed(self, first: int, last: int) -> Iterator[bytes]:
        """The stored chunks, cut out of one request to the store."""
        offsets = self._offsets
        try:
            pieces = self._blobs.read(self._key, offsets[first], offsets[last + 1])
        except ValueError:
            raise Damaged(f"{self._key}: the file was cut after it was opened") from None
        held = bytearray()
        for number in range(first, last + 1):
            length = offsets[number + 1] - offsets[number]
            while len(held) < length:
                piece = next(pieces, None)
                if piece is None:
                    raise Damaged(f"{self._key}: the file was cut after it was opened")
                held += piece
            yield _taken(held, length)  # and no name for it here, where it would be kept

    def _opened(self, kind: int, number: int, sealed: bytes) -> bytes:
        try:
            return self._chunks.open(kind, number, sealed)
        except (InvalidTag, struct.error, OverflowError, ValueError):
            what = "the index" if kind == _INDEX else f"chunk {number}"
            raise Damaged(f"{self._key}: {what} was altered, cut or moved") from None


def _taken(held: bytearray, length: int) -> bytes:
    with memoryview(held) as view:
        taken = bytes(view[:length])
    del held[:length]
    return taken


@dataclass(frozen=True, slots=True)
class _Header:
    """What the header of a file says, once its key has proven it; it takes `bytes` itself."""

    compression: str
    chunk_bytes: int
    bytes: int


class _Chunks:
    """Seals and opens under one data key. Nonces are places, and no place of a file is written twice."""

    def __init__(self, data_key: bytes, context: bytes) -> None:
        self._cipher = AESGCM(data_key)
        self._context = context

    def seal(self, kind: int, number: int, data: Bytes) -> bytes:
        place = _PLACE.pack(kind, number)
        return self._cipher.encrypt(place, data, place + self._context)

    def open(self, kind: int, number: int, sealed: bytes) -> bytes:
        place = _PLACE.pack(kind, number)
        return self._cipher.decrypt(place, sealed, place + self._context)


def _context(tenant: str, key: str) -> bytes:
    # The lengths keep ("ab", "c") and ("a", "bc") apart.
    parts = (tenant.encode(), key.encode())
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _big_endian(numbers: "array[int]") -> "array[int]":
    """Numbers of this machine in the order of the file, and back."""
    turned = numbers[:]
    if sys.byteorder == "little":
        turned.byteswap()
    return turned


def _compressor(name: str) -> Codec:
    if name == "zstd":
        from backports import zstd  # noqa: PLC0415 a process that never seals a file never loads it

        compressor = zstd.ZstdCompressor(level=1)
        return lambda data: compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)
    if name == "gzip":
        return lambda data: zlib.compress(data, 1, wbits=_GZIP)
    return lambda data: data


def _decompress(name: str, data: bytes, bytes_max: int) -> bytes:
    if name == "zstd":
        from backports import zstd  # noqa: PLC0415

        return zstd.ZstdDecompressor().decompress(data, bytes_max)
    if name == "gzip":
        return zlib.decompressobj(wbits=_GZIP).decompress(data, bytes_max)
    return data
