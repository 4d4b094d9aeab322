"""GET and HEAD /files/<execution>/<name> by a signed link: no API key, and 404 whatever is wrong with it."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from services.api import executions, openapi
from services.api.core import links
from services.api.executions import File
from services.api.parts import AnyParts
from services.api.problems import not_found, unavailable
from services.contracts.ids import EXECUTION_ID
from services.runtime import telemetry
from services.runtime.blobs import BlobMissing, BlobsUnavailable

NAME_CHARS_MAX = 200

log = telemetry.get_logger()
router = APIRouter(prefix="/files", tags=["files"])


@router.get("/{execution_id}/{name}", operation_id="getFile", responses=openapi.FILE)
@router.head("/{execution_id}/{name}", operation_id="headFile", responses=openapi.FILE)
async def read(execution_id: str, name: str, request: Request, parts: AnyParts) -> Response:
    """The file's bytes. Links come from GET /v1/executions/{id} and expire."""
    is_ours = EXECUTION_ID.fullmatch(execution_id) and len(name) <= NAME_CHARS_MAX and "\0" not in name
    if not is_ours or request.scope["raw_path"] != links.path(execution_id, name).encode():
        raise not_found()
    file = await parts.pool.read(lambda cursor: executions.file(cursor, execution_id, name))
    now_s = parts.clock.now().timestamp()
    query = request.scope["query_string"].decode("latin-1")
    # The tenant is the row's own: a link signed for another one fails like any altered link.
    if file is None or not parts.links.permits(query, file.tenant, execution_id, name, now_s):
        raise not_found()
    headers = {
        "Content-Length": str(file.bytes),
        "Content-Disposition": f'attachment; filename="{_quoted(name)}"',
        "ETag": f'"{file.sha256}"',
        "Cache-Control": "no-store",
        "Content-Security-Policy": "sandbox",
    }
    if request.method == "HEAD":
        return Response(headers=headers, media_type=file.content_type)
    try:
        pieces = await run_in_threadpool(parts.blobs.read, file.blob_key, 0, file.bytes)
    except (BlobMissing, ValueError):
        raise _damaged(file) from None
    except BlobsUnavailable:
        raise unavailable("the blob store is away") from None
    return StreamingResponse(pieces, headers=headers, media_type=file.content_type)


def _damaged(file: File) -> Exception:
    log.error("file_damaged", execution_id=file.execution_id, name=file.name)
    return not_found()


def _quoted(name: str) -> str:
    return "".join(
        char if char.isascii() and char.isprintable() and char not in '"\\' else "_" for char in name
    )
