"""GET and HEAD /files/<execution>/<name> by a signed link: no API key, and 404 whatever is wrong with it.

Files are sealed in the blob store; they are opened chunk by chunk on their way out, a range of bytes as well
as the whole.
"""

from collections.abc import Generator, Iterator
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from services.api import file_access, openapi
from services.api.core import etags, links, ranges
from services.api.core.ranges import Wanted
from services.api.executions import File
from services.api.parts import AnyParts, Author
from services.api.problems import not_found, unavailable
from services.api.sending import Pieces
from services.contracts import file_names
from services.contracts.ids import EXECUTION_ID
from services.runtime import telemetry
from services.runtime.blobs import BlobMissing, BlobsUnavailable
from services.runtime.container import ContainerError, Damaged, Files

log = telemetry.get_logger()
router = APIRouter(tags=["files"])


@router.get("/files/{execution_id}/{name}", operation_id="getFile", **openapi.FILE)
@router.head("/files/{execution_id}/{name}", operation_id="headFile", **openapi.FILE_HEAD)
async def read(execution_id: str, name: str, request: Request, parts: AnyParts) -> Response:
    """The file's bytes, or one range of them. Links come from GET /v1/executions/{id} and expire."""
    is_ours = EXECUTION_ID.fullmatch(execution_id) and len(name) <= file_names.CHARS_MAX and "\0" not in name
    if not is_ours or request.scope["raw_path"] != links.path(execution_id, name).encode():
        raise not_found()
    file = await parts.pool.read(lambda cursor: file_access.openable(cursor, execution_id, name))
    key_id = _key_id(parts.links, file, request, parts.clock.now().timestamp())
    if file is None or key_id is None:
        log.info("file_refused", execution_id=execution_id, name=name)
        raise not_found()
    status, span, headers = _asked(file, request)
    pieces: Generator[bytes, None, None] | None = None
    if span is not None and request.method == "GET":
        parts.door.download(request.scope)
        pieces = await run_in_threadpool(_opened, parts.files, file, *span)
    method, client = request.method, request.client.host if request.client else None
    await parts.pool.write(
        lambda cursor: file_access.record(cursor, file, method, status, span, key_id, client)
    )
    log.info(
        "file_read", execution_id=execution_id, name=name, tenant=file.tenant, method=method, status=status
    )
    if pieces is None:
        return Response(status_code=status, headers=headers, media_type=file.content_type)
    return Pieces(pieces, status, headers, file.content_type)


@router.post(
    "/v1/executions/{id}/files/{name}/revoke-links",
    operation_id="revokeLinks",
    status_code=204,
    responses=openapi.PROBLEMS,
)
async def revoke_links(id: str, name: str, caller: Author, parts: AnyParts) -> Response:
    """Void every link that was made to the file until now. Links made from now on open it."""
    is_ours = EXECUTION_ID.fullmatch(id) and "\0" not in name
    if not is_ours or not await parts.pool.write(
        lambda cursor: file_access.revoke(cursor, caller.tenant, id, name)
    ):
        raise not_found()
    log.info("links_revoked", execution_id=id, name=name, tenant=caller.tenant, by=caller.principal)
    return Response(status_code=204)


def _key_id(signed: links.Links, file: File | None, request: Request, now_s: float) -> str | None:
    if file is None:
        return None
    query = request.scope["query_string"].decode("latin-1")
    # The tenant is the row's own: a link signed for another one fails like any altered link.
    return signed.permits(query, file.tenant, file.execution_id, file.name, now_s, file.link_generation)


def _asked(file: File, request: Request) -> tuple[int, tuple[int, int] | None, dict[str, str]]:
    """Status, the bytes to send (None: none, the range lies behind the end) and headers."""
    headers = _headers(file)
    if etags.none_matched(request.headers.get("if-none-match"), headers["ETag"]):
        return 304, None, {"ETag": headers["ETag"], "Cache-Control": headers["Cache-Control"]}
    given = request.headers if request.method == "GET" else {}  # a range of HEAD means nothing
    asked = ranges.wanted(given.get("range"), given.get("if-range"), headers["ETag"], file.bytes)
    if asked is Wanted.NOTHING:
        return 416, None, headers | {"Content-Range": f"bytes */{file.bytes}", "Content-Length": "0"}
    if isinstance(asked, Wanted):
        return 200, (0, file.bytes), headers
    start, end = asked
    span = {"Content-Range": f"bytes {start}-{end - 1}/{file.bytes}", "Content-Length": str(end - start)}
    return 206, asked, headers | span


def _headers(file: File) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Content-Length": str(file.bytes),
        "Content-Disposition": _attachment(file.name),
        "ETag": f'"{file.sha256}"',
        "Cache-Control": "no-store",
        "Content-Security-Policy": "sandbox",
    }


def _opened(files: Files, file: File, start: int, end: int) -> Generator[bytes, None, None]:
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


def _sent(first: bytes, pieces: Iterator[bytes], file: File) -> Generator[bytes, None, None]:
    """A fault in the middle cuts the answer short of its Content-Length, which no client takes for whole."""
    yield first
    del first  # a megabyte
    try:
        yield from pieces
    except (BlobMissing, BlobsUnavailable, ContainerError) as error:
        log.error("file_cut_short", execution_id=file.execution_id, name=file.name, error=str(error))
        raise


def _attachment(name: str) -> str:
    """RFC 6266: the name as it is for who reads `filename*`, and as ASCII for others."""
    ascii_ = "".join(
        char if char.isascii() and char.isprintable() and char not in '"\\' else "_" for char in name
    )
    whole = "" if ascii_ == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{ascii_}"{whole}'
