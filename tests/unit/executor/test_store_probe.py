"""The worker knows whether its blob store takes files."""

from pathlib import Path

from services.executor.work.store import StoreProbe
from services.runtime import blobs
from services.runtime.blobs import Writer


class Full:
    """A store whose disk is full: it takes a file's beginning, and never its end."""

    def __init__(self) -> None:
        self.is_full = True
        self._store = blobs.in_memory()

    def create(self, key: str) -> Writer:
        if self.is_full:
            raise blobs.BlobsUnavailable(f"{key}: OSError: [Errno 28] No space left on device")
        return self._store.create(key)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_a_full_store_is_told_and_so_is_its_return() -> None:
    store = Full()
    probe = StoreProbe(store, "worker-1")  # type: ignore[arg-type]
    assert probe.ready() == (False, "the blob store was not asked yet")
    probe.probe()
    assert not probe.ready()[0] and "No space left on device" in probe.ready()[1]
    store.is_full = False
    probe.probe()
    assert probe.ready()[0]


def test_an_unreachable_store_is_told_and_nothing_is_left_in_a_good_one(tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    store = blobs.connect(f"file://{folder}")
    probe = StoreProbe(store, "worker-1")
    probe.probe()
    assert probe.ready()[0]
    assert not [*store.list("health")]
    away = folder.rename(tmp_path / "away")
    folder.write_text("a file where the folder was")
    probe.probe()
    assert not probe.ready()[0]
    folder.unlink()
    away.rename(folder)
    probe.probe()
    assert probe.ready()[0]
