"""From COPY to the blob store: bytes are hashed and counted on their way into the file."""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from services.runtime.blobs import Writer

CHUNK_BYTES = 256 * 1024


class Sink(io.RawIOBase):
    """Passes chunks on; `before_chunk` may raise to stop the export."""

    def __init__(self, writer: Writer, before_chunk: Callable[[], None]) -> None:
        self._writer = writer
        self._before_chunk = before_chunk
        self._hash = hashlib.sha256()
        self._ended = False
        self.bytes = 0

    def writable(self) -> bool:
        """Needed by BufferedWriter."""
        return True

    def write(self, data: Any) -> int:
        """Take one chunk; after the end it is thrown away."""
        chunk = bytes(data)
        if not self._ended:
            self._before_chunk()
            self._writer.write(chunk)
            self._hash.update(chunk)
            self.bytes += len(chunk)
        return len(chunk)

    @contextmanager
    def rows(self) -> Iterator["io.BufferedWriter[Sink]"]:
        """What COPY writes to, one small call a row; left without an error, everything is passed on."""
        gathered = io.BufferedWriter(self, CHUNK_BYTES)
        try:
            yield gathered
            gathered.flush()
        finally:
            # An abandoned BufferedWriter flushes when it is collected: by then nobody listens.
            self._ended = True

    @property
    def sha256(self) -> str:
        """The hash of everything passed on so far, in hex."""
        return self._hash.hexdigest()
