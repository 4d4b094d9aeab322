"""GET and HEAD /files/<execution>/<name> by a signed link: no API key, and 404 whatever is wrong with it.

Files are sealed in the blob store; they are opened chunk by chunk on their way out, a range of bytes as well
as the whole.
"""

from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from services.api import executions, openapi
from services.api.core import links, ranges
from services.api.core.ranges import Wanted
from services.api.executions import File
from services.api.parts import AnyParts
from services.api.problems import not_found, unavailable
from services.contracts.ids import EXECUTION_ID
from services.runtime import telemetry
from services.runtime.blobs import BlobMissing, BlobsUnavailable
from services.runtime.container import ContainerError, Damaged, Files

NAME_CHARS_MAX = 200

log = telemetry.get_logger()
router = APIRouter(prefix="/files", tags=["files"])


@router.get("/{execution_id}/{name}", operation_id="getFile", responses=openapi.FILE)
@router.head("/{execution_id}/{name}", operation_id="headFile", responses=openapi.FILE)
async def read(execution_id: str, name: str, request: Request, parts: AnyParts) -> Response:
    """The file's bytes, or one range of them. Links come from GET /v1/executions/{id} and expire."""
    is_ours = EXECUTION_ID.fullmatch(execution_id) and len(name) <= NAME_CHARS_MAX and "\0" not in name
    if not is_ours or request.scope["raw_path"] != links.path(execution_id, name).encode():
        raise not_found()
    file = await parts.pool.read(lambda cursor: executions.file(cursor, execution_id, name))
    now_s = parts.clock.now().timestamp()
    query = request.scope["query_string"].decode("latin-1")
    # The tenant is the row's own: a link signed for another one fails like any altered link.
    if file is None or not parts.links.permits(query, file.tenant, execution_id, name, now_s):
        raise not_found()
    headers = _headers(file)
    if request.method == "HEAD":
        return Response(headers=headers, media_type=file.content_type)
    asked = ranges.wanted(
        request.headers.get("range"), request.headers.get("if-range"), headers["ETag"], file.bytes
    )
    if asked is Wanted.NOTHING:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{file.bytes}"})
    start, end = (0, file.bytes) if isinstance(asked, Wanted) else asked
    status = 200 if isinstance(asked, Wanted) else 206
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.bytes}"
    headers["Content-Length"] = str(end - start)
    pieces = await run_in_threadpool(_opened, parts.files, file, start, end)
    return StreamingResponse(pieces, status, headers=headers, media_type=file.content_type)


def _headers(file: File) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Content-Length": str(file.bytes),
        "Content-Disposition": f'attachment; filename="{_quoted(file.name)}"',
        "ETag": f'"{file.sha256}"',
        "Cache-Control": "no-store",
        "Content-Security-Policy": "sandbox",
    }


def _opened(files: Files, file: File, start: int, end: int) -> Iterator[bytes]:
    """The plain bytes; the first chunk is opened before the answer begins, so that it can still be a 404."""
    try:
        sealed = files.open(file.tenant, file.blob_key)
        if (sealed.size, sealed.sha256) != (file.bytes, file.sha256):
            raise Damaged(f"{file.blob_key}: expected the file that was published, found another one")
        pieces = sealed.read(start, end)
        return _sent(next(pieces, b""), pieces, file)
    except (BlobMissing, ContainerError) as error:
        log.error("file_damaged", execution_id=file.execution_id, name=file.name, error=str(error))
        raise not_found() from None
    except BlobsUnavailable:
        raise unavailable("the blob store is away") from None


def _sent(first: bytes, pieces: Iterator[bytes], file: File) -> Iterator[bytes]:
    """A fault in the middle cuts the answer short of its Content-Length, which no client takes for whole."""
    yield first
    try:
        yield from pieces
    except (BlobMissing, BlobsUnavailable, ContainerError) as error:
        log.error("file_cut_short", execution_id=file.execution_id, name=file.name, error=str(error))
        raise


def _quoted(name: str) -> str:
    return "".join(
        char if char.isascii() and char.isprintable() and char not in '"\\' else "_" for char in name
    )
