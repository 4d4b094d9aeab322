"""From COPY to the blob store: what COPY writes into a pipe, a second thread compresses, hashes and seals.

The COPY makes one small call a row and so keeps one core busy; the rest of the work runs beside it.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from services.runtime.container import CHUNK_BYTES, SealedWriter

GATHERED_BYTES = 256 * 1024


@contextmanager
def rows(writer: SealedWriter, before_chunk: Callable[[], None]) -> Iterator[BinaryIO]:
    """What COPY writes to; left without an error, everything was passed on to `writer`.

    `before_chunk` runs in the second thread and may raise to stop the export. What it or the writer raises is
    raised here.
    """
    read_end, write_end = os.pipe()
    # A system that allows less, or has no such call, only lets the two threads wait more often.
    with suppress(OSError, AttributeError):
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)
    pump = _Pump(os.fdopen(read_end, "rb", buffering=0), writer, before_chunk)
    pump.start()
    try:
        # The pump ended early, and says why below.
        with suppress(BrokenPipeError), os.fdopen(write_end, "wb", GATHERED_BYTES) as gathered:
            yield gathered
    finally:
        pump.join()
    if pump.error is not None:
        raise pump.error


class _Pump(threading.Thread):
    """Moves chunks until the pipe ends. When it fails it closes its end, which stops the COPY."""

    def __init__(self, source: BinaryIO, writer: SealedWriter, before_chunk: Callable[[], None]) -> None:
        super().__init__(name=f"{threading.current_thread().name}-pump", daemon=True)
        self._source = source
        self._writer = writer
        self._before_chunk = before_chunk
        self.error: BaseException | None = None

    def run(self) -> None:
        """See the module."""
        chunk = memoryview(bytearray(CHUNK_BYTES))
        try:
            with self._source:
                while filled := _fill(self._source, chunk):
                    self._before_chunk()
                    self._writer.write(chunk[:filled])
        except BaseException as error:  # raised again where the COPY runs
            self.error = error


def _fill(source: BinaryIO, chunk: memoryview) -> int:
    """Read until the chunk is full or the source ends; how many bytes there are."""
    filled = 0
    while filled < len(chunk):
        got = source.readinto(chunk[filled:])  # type: ignore[attr-defined]
        if not got:
            break
        filled += got
    return filled
