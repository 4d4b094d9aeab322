"""Whether the blob store takes files: asked by writing one, since a full store still reads and lists."""

import threading
import time

from services.runtime import telemetry
from services.runtime.blobs import BlobExists, Blobs, BlobsUnavailable

PERIOD_S = 10.0
SLOW_S = 60.0
PROBE = bytes(4096)

log = telemetry.get_logger()


class StoreProbe:
    """Asks on a thread of its own; `ready` may be asked from any other."""

    def __init__(self, store: Blobs, worker: str) -> None:
        self._store, self._key = store, f"health/{worker}"
        self._trouble: str | None = "the blob store was not asked yet"
        self._asked_at = time.monotonic()
        self._closing = threading.Event()

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, name="store-probe", daemon=True).start()

    def close(self) -> None:
        """Stop asking."""
        self._closing.set()

    def ready(self) -> tuple[bool, str]:
        """Whether the last file was taken, and not too long ago."""
        if self._trouble is not None:
            return False, self._trouble
        age_s = time.monotonic() - self._asked_at
        return age_s < SLOW_S, f"the blob store took a file {age_s:.0f} s ago"

    def probe(self) -> None:
        """Write a file and delete it again."""
        try:
            self._store.delete(self._key)  # of a process of this name that was killed
            with self._store.create(self._key) as writer:
                writer.write(PROBE)
                writer.finish()
            self._store.delete(self._key)
        except (BlobsUnavailable, BlobExists) as error:
            if self._trouble is None:
                log.warning("store_refuses", error=str(error))
            self._trouble = f"the blob store takes no file: {error}"
        else:
            self._trouble = None
        self._asked_at = time.monotonic()

    def _run(self) -> None:
        self.probe()
        while not self._closing.wait(PERIOD_S):
            self.probe()
