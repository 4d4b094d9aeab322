"""Answers that are read piece by piece from a thread, and let go of everything when the client has gone."""

from collections.abc import Generator, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Send

SLICE_BYTES = 64 * 1024


class Pieces(StreamingResponse):
    """Sends what a generator yields. It runs in a thread and is closed at the end, however that comes.

    Slices of SLICE_BYTES keep what is written but unread small. A generator left to the garbage collector
    would keep its piece, and the store's stream, for as long as nothing else is collected.
    """

    def __init__(
        self,
        pieces: Generator[bytes, None, None],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__((), status, headers, media_type)
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        """See StreamingResponse."""
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            while piece := await run_in_threadpool(next, self._pieces, b""):
                await send_slices(send, piece)
                del piece  # not beside the next one
        finally:
            self._pieces.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_slices(send: Send, piece: bytes) -> None:
    """Send a piece of a body of which more will come."""
    view = memoryview(piece)
    for at in range(0, len(view), SLICE_BYTES):
        await send({"type": "http.response.body", "body": view[at : at + SLICE_BYTES], "more_body": True})
