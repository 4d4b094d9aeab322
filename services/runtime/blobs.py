"""The blob store: finished files under keys that are written once and never change.

A key is `executions/<tenant>/<execution>/<step>/<attempt>-<take>/<file>`: segments of A-Z a-z 0-9 . _ @ -,
none beginning with a dot. A file is visible under its key only when its writer was finished; what a killed
process leaves behind is never seen by a reader.
"""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

CHUNK_BYTES = 1 << 20
STREAM_BYTES = 64 * 1024  # what a reader that stays with a piece keeps; larger ones are no quicker
PART_BYTES = 8 << 20
GATHERED_BYTES = 64 * 1024
KEY_BYTES_MAX = 1024
ABANDONED_S = 60
_SEGMENT = r"[A-Za-z0-9_@-][A-Za-z0-9._@-]{0,254}"
_KEY = re.compile(f"{_SEGMENT}(/{_SEGMENT})*")
_UNFINISHED = ".unfinished"


class BlobMissing(Exception):
    """No finished file has this key."""


class BlobExists(Exception):
    """The key is taken: files are written once."""


class BlobsUnavailable(Exception):
    """The store cannot be reached or refused the work; trying again later may help."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """One finished file of a listing."""

    key: str
    size: int


class Writer(Protocol):
    """A file in the making. Leaving its `with` block without `finish` throws it away."""

    def write(self, data: bytes) -> int:
        """Append bytes and return their number. Raises BlobsUnavailable."""

    def finish(self) -> None:
        """Make the whole file visible at once. Raises BlobExists and BlobsUnavailable."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Blobs(Protocol):
    """The store. All methods block; all raise BlobsUnavailable, and ValueError for a key of another form."""

    def create(self, key: str) -> Writer:
        """Begin a new file. Raises BlobExists when the key is taken already."""

    def size(self, key: str) -> int:
        """Bytes of a finished file. Raises BlobMissing."""

    def exists(self, key: str) -> bool:
        """Whether a finished file has this key."""

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end` (None: to the end) in pieces of at most 1 MiB.

        Raises BlobMissing, and ValueError unless 0 <= start <= end <= size, both before the first piece.
        """

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Every finished file whose key begins with the whole segments `prefix`, in no order."""

    def delete(self, key: str) -> None:
        """Remove a file; a key without one is fine."""


def connect(url: str) -> Blobs:
    """The store of MILLSTREAM_BLOBS__URL: `file:///folder` (created if need be), or a bucket's URL."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FolderBlobs(Path(unquote(parts.path)))
    return ObjectBlobs(from_url(url))


def in_memory() -> Blobs:
    """A store that lives as long as the process."""
    return ObjectBlobs(MemoryStore())


class ObjectBlobs:
    """Any object store that obstore speaks to; credentials come from its usual environment variables."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def create(self, key: str) -> Writer:
        """See Blobs. Beyond 8 MiB a multipart upload, for which the key is checked only here: keys hold the
        random id of one take, so nobody else writes this one."""
        if self.exists(key):
            raise BlobExists(key)
        return _Upload(self._store, key)

    def size(self, key: str) -> int:
        """See Blobs."""
        with _told(key):
            return int(self._store.head(checked(key))["size"])

    def exists(self, key: str) -> bool:
        """See Blobs."""
        try:
            self.size(key)
        except BlobMissing:
            return False
        return True

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See Blobs."""
        size = self.size(key)
        end = size if end is None else end
        if not 0 <= start <= end <= size:
            raise ValueError(f"{key}: expected a range within 0 and {size}, found {start} to {end}")
        return self._pieces(key, start, end)

    def _pieces(self, key: str, start: int, end: int) -> Iterator[bytes]:
        if start == end:  # stores refuse an empty range
            return
        with _told(key):
            answer = self._store.get(key, options={"range": (start, end)})
            for piece in answer.stream(min_chunk_size=STREAM_BYTES):
                view = memoryview(piece)
                for at in range(0, len(view), CHUNK_BYTES):
                    yield bytes(view[at : at + CHUNK_BYTES])

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """See Blobs."""
        with _told(prefix):
            for page in self._store.list(checked(prefix)):
                for item in page:
                    if _KEY.fullmatch(item["path"]):
                        yield BlobInfo(item["path"], item["size"])

    def delete(self, key: str) -> None:
        """See Blobs."""
        try:
            with _told(key):
                self._store.delete(checked(key))
        except BlobMissing:
            return


class FolderBlobs(ObjectBlobs):
    """A folder of this machine. Files are synced to disk before they appear, and links are not followed."""

    def __init__(self, folder: Path) -> None:
        with _told(str(folder)):
            (folder / _UNFINISHED).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._folder = folder.resolve(strict=True)
            super().__init__(LocalStore(self._folder))
            self._sweep()

    def create(self, key: str) -> Writer:
        """See Blobs; a second writer of the same key learns of the first at `finish` at the latest."""
        if self.exists(key):
            raise BlobExists(key)
        return _FolderWriter(self._folder, key)

    def size(self, key: str) -> int:
        """See Blobs."""
        path = self._folder / checked(key)
        if path.resolve() != path:
            raise BlobMissing(f"{key}: a link stands in its place")
        return super().size(key)

    def _sweep(self) -> None:
        """Remove what killed writers left: files that nobody has locked any more. The folder's own clock
        tells which are old enough not to be on their way to their lock."""
        with tempfile.NamedTemporaryFile(dir=self._folder / _UNFINISHED) as now:
            before = os.fstat(now.fileno()).st_mtime - ABANDONED_S
            for path in (self._folder / _UNFINISHED).iterdir():
                try:
                    with path.open("rb") as file:
                        if os.fstat(file.fileno()).st_mtime < before:
                            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                            path.unlink()
                except (BlockingIOError, FileNotFoundError):  # its writer lives, or has just finished
                    continue


def checked(key: str) -> str:
    """The key itself. Raises ValueError unless it is a key as this module describes them."""
    if not key.isascii() or len(key) > KEY_BYTES_MAX or not _KEY.fullmatch(key):
        raise ValueError(f"expected a blob key of segments of A-Z a-z 0-9 . _ @ -, found {key[:200]!r}")
    return key


class _FolderWriter:
    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._target = folder / key
        with _told(key):
            descriptor, name = tempfile.mkstemp(dir=folder / _UNFINISHED)
        self._temporary = Path(name)
        self._file: BinaryIO = os.fdopen(descriptor, "wb", buffering=GATHERED_BYTES)
        self._written = self._advised = 0
        fcntl.flock(self._file, fcntl.LOCK_EX)  # gone with the process, however it ends

    def write(self, data: bytes) -> int:
        with _told(self._target.name):
            self._written += len(data)
            if self._written - self._advised >= PART_BYTES:
                self._begin_writeback()
            return self._file.write(data)

    def _begin_writeback(self) -> None:
        """Let the disk work while the rest is made; otherwise `finish` would wait for all of it."""
        with suppress(AttributeError):  # Linux: other systems begin by themselves
            length = self._written - self._advised
            os.posix_fadvise(self._file.fileno(), self._advised, length, os.POSIX_FADV_DONTNEED)
        self._advised = self._written

    def finish(self) -> None:
        with _told(self._target.name):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._target.parent.mkdir(parents=True, exist_ok=True)
            os.link(self._temporary, self._target)  # unlike a rename, a link never replaces a file
            for folder in self._target.parents[: len(self._target.relative_to(self._folder).parts)]:
                _sync_folder(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:  # a full disk; the caller has the error of its own write or finish
            pass
        finally:
            self._temporary.unlink(missing_ok=True)


class _Upload:
    """Keeps the first 8 MiB back: a file that small is put at once, and only if its key is free."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store = store
        self._key = key
        self._head: list[bytes] = []
        self._head_bytes = 0
        self._multipart: obstore.WritableFile | None = None

    def write(self, data: bytes) -> int:
        with _told(self._key):
            if self._multipart is None:
                self._head.append(bytes(data))
                self._head_bytes += len(data)
                if self._head_bytes <= PART_BYTES:
                    return len(data)
                self._multipart = obstore.open_writer(self._store, self._key, buffer_size=PART_BYTES)
                data, kept = b"".join(self._head), len(data)
                self._head.clear()
                self._multipart.write(data)
                return kept
            return self._multipart.write(data)

    def finish(self) -> None:
        with _told(self._key):
            if self._multipart is None:
                self._store.put(self._key, b"".join(self._head), mode="create")
            else:
                self._multipart.close()
                self._multipart = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._multipart is not None:  # dropped unclosed, the upload is never completed
            self._multipart = None
        self._head.clear()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(key: str) -> Iterator[None]:
    """Turn the store's many errors into the three that a caller can act on."""
    try:
        yield
    except FileNotFoundError as error:
        raise BlobMissing(key) from error
    except (AlreadyExistsError, FileExistsError) as error:
        raise BlobExists(key) from error
    except (obstore.exceptions.BaseError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise BlobsUnavailable(f"{key}: {type(error).__name__}: {reason}") from error
