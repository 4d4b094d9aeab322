"""Dead letters whose claims are kept for as long as the test."""

from services.runtime import blobs
from services.runtime.blobs import Blobs
from services.runtime.entropy import LocalClock
from services.runtime.processor.letters import Letters, Whole, unclaimed


def in_memory(store: Blobs | None = None) -> Letters:
    """The letters of one loop; `store` is one that the test looks into."""
    return Letters(store or blobs.in_memory(), LocalClock())


def claimed(store: Blobs, headers: tuple[tuple[str, bytes], ...]) -> Whole:
    """The record that a letter's headers claim."""
    key = dict(headers)["ms_claim"].decode()
    return unclaimed(b"".join(store.read(key)))
