"""Large bytes on their way into a row of the loop's tables: compressed, and told apart by how they begin.

A state of many steps repeats itself and shrinks to a tenth. What fits into a page is written in place; more
is cut into chunks in a table of its own, and read back from there. Each byte less is also spared by the
statement's text, its parser and the write-ahead log.
"""

import threading

from backports import zstd

SMALL_BYTES = 1000
_COMPRESSED = b"\x28\xb5\x2f\xfd"
"""How a zstd frame begins."""

_own = threading.local()


def squeezed(body: bytes) -> bytes:
    """What is kept of these bytes; small ones stay as they are."""
    if len(body) < SMALL_BYTES and not body.startswith(_COMPRESSED):
        return body
    return _compressor().compress(body, zstd.ZstdCompressor.FLUSH_FRAME)


def restored(kept: bytes) -> bytes:
    """The bytes as they were."""
    return zstd.decompress(kept) if kept.startswith(_COMPRESSED) else kept


def _compressor() -> zstd.ZstdCompressor:
    # Making one takes longer than compressing a state. It serves one thread.
    found: zstd.ZstdCompressor | None = getattr(_own, "compressor", None)
    if found is None:
        found = _own.compressor = zstd.ZstdCompressor(level=1)
    return found
