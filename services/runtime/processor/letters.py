"""Dead letters: records that cannot be processed, with the reason in headers, small enough for every topic.

A letter holds its record as it came. Above LETTER_BYTES_MAX it holds the head of the value, with size, hash
and address in headers, and the whole record lies in the blob store under the key that `ms_claim` names. Where
the blob store is away the letter goes without that copy: one record never stops the others.
"""

import hashlib
import threading
import time
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from services.contracts.envelope import Headers, Outgoing
from services.contracts.topics import DEAD_LETTER_SUFFIX
from services.runtime import telemetry
from services.runtime.blobs import BlobExists, Blobs, BlobsUnavailable
from services.runtime.entropy import Clock
from services.runtime.processor import metrics
from services.runtime.processor.squeeze import restored, squeezed
from services.runtime.processor.types import Halted, Input, Poison

LETTER_BYTES_MAX = 256 * 1024
HEAD_BYTES = 16 * 1024
HEADERS_BYTES_MAX = 64 * 1024
KEY_BYTES_MAX = 4096
FITS_BYTES = 32 * 1024
"""A topic that refuses a record of this size takes nothing of ours: that is for the operator to change."""
ERROR_CHARS_MAX = 2000
LOGGED_CHARS = 300
FOLDER = "dead-letters"
KEPT = timedelta(days=31)
"""A day longer than the dead-letter topics keep their records."""
SWEEP_S = 3600.0
CLAIM_PATIENCE_S = 5.0
AWAY_S = 30.0

log = telemetry.get_logger()

Whole = tuple[bytes | None, bytes | None, Headers]
"""Key, value and headers of a record as it came."""


def dead_letter(service: str, record: Input, error: Poison) -> Outgoing:
    """The record as it came, with the reason in headers; key and value untouched, unless it must be cut."""
    return _letter(service, record, error.reason, str(error), record.address, error.value)


def is_letter(record: Outgoing) -> bool:
    """Whether its topic is one of dead letters."""
    return record.topic.endswith(DEAD_LETTER_SUFFIX)


def note(record: Outgoing) -> None:
    """Count a dead letter and log it: its reason, and where the original lies."""
    metrics.DEAD_LETTERS.labels(record.topic).inc()
    told = {name: value.decode("utf-8", "replace") for name, value in record.headers[-_ADDED_MAX:]}
    log.warning(
        "dead_letter",
        topic=record.topic,
        reason=told.get("ms_reason"),
        origin=told.get("ms_origin"),
        key=(record.key or b"")[:80].decode("utf-8", "replace"),
        error=told.get("ms_error", "").partition("\n")[0][:LOGGED_CHARS],
    )


def unclaimed(body: bytes) -> Whole:
    """The record that a claim in the blob store holds."""
    whole: Whole = msgspec.msgpack.decode(restored(body), type=Whole)
    return whole


class Letters:
    """Makes letters fit. Any thread may ask."""

    def __init__(self, blobs: Blobs, clock: Clock) -> None:
        """`blobs` takes what does not fit; `clock` tells the day under which it is kept."""
        self._blobs, self._clock = blobs, clock
        self._away_until = 0.0
        self._swept_at: float | None = None

    def fitted(self, record: Outgoing) -> Outgoing:
        """The record, or if it is a letter that is too large, one that tells where its record is."""
        if not is_letter(record) or size(record) <= LETTER_BYTES_MAX:
            return record
        original, reasons = _split(record.headers)
        value = record.value or b""
        added = [*reasons, ("ms_bytes", str(len(value)).encode())]
        added.append(("ms_sha256", hashlib.sha256(value).hexdigest().encode()))
        if (claim := self._claim((record.key, record.value, original))) is not None:
            added.append(("ms_claim", claim.encode()))
        key = record.key if len(record.key or b"") <= KEY_BYTES_MAX else None
        return Outgoing(record.topic, key, value[:HEAD_BYTES], (*_first(original), *added))

    def instead(self, service: str, refused: Sequence[tuple[Outgoing, str]]) -> tuple[Outgoing, ...]:
        """What to produce where the broker refuses these records for ever, each with its reason.

        Raises Halted when they are so small that the topic is at fault.
        """
        if all(size(record) <= FITS_BYTES for record, _ in refused):
            record, why = refused[0]
            raise Halted(
                f"{record.topic}: expected the broker to take a record of {size(record)} bytes, found {why};"
                " compare the topic with `millstream topics apply`"
            )
        # A small one was only in the same batch.
        return tuple(
            record if size(record) <= FITS_BYTES else self.stand_in(service, record, why)
            for record, why in refused
        )

    def stand_in(self, service: str, record: Outgoing, why: str) -> Outgoing:
        """The dead letter of a record of ours that no broker takes, which is noted."""
        if is_letter(record):  # its topic takes less than ours should: the reasons and the address alone
            return Outgoing(record.topic, None, b"", _split(record.headers)[1])
        lost = Input(record.topic, -1, -1, record.key, record.value, record.headers)
        letter = self.fitted(_letter(service, lost, "unsendable", why, f"outbox/{service}"))
        note(letter)
        return letter

    def _claim(self, whole: Whole) -> str | None:
        """Keep a record in the blob store; its key, or None while that is away."""
        if time.monotonic() < self._away_until:
            return None
        body = squeezed(msgspec.msgpack.encode(whole))
        key = f"{FOLDER}/{self._clock.now():%Y-%m-%d}/{hashlib.sha256(body).hexdigest()}"
        written = threading.Event()
        # On a thread of its own: a store that hangs must not hold up the loop.
        thread = threading.Thread(target=self._keep, args=(key, body, written), daemon=True)
        thread.start()
        thread.join(CLAIM_PATIENCE_S)
        if written.is_set():
            return key
        self._away_until = time.monotonic() + AWAY_S
        log.error("claim_not_kept", key=key, bytes=len(body))
        return None

    def _keep(self, key: str, body: bytes, written: threading.Event) -> None:
        try:
            with self._blobs.create(key) as file:
                file.write(body)
                file.finish()
            written.set()
            self._sweep()
        except BlobExists:  # the same record, given up once more
            written.set()
        except BlobsUnavailable as error:
            log.warning("claim_store_away", error=str(error))

    def _sweep(self) -> None:
        """Remove claims whose letters are gone, at most once an hour."""
        if self._swept_at is not None and time.monotonic() < self._swept_at + SWEEP_S:
            return
        self._swept_at = time.monotonic()
        oldest = f"{FOLDER}/{self._clock.now() - KEPT:%Y-%m-%d}"
        for found in list(self._blobs.list(FOLDER)):
            if found.key < oldest:
                self._blobs.delete(found.key)


def size(record: Outgoing) -> int:
    """Bytes of key, value and headers."""
    return len(record.key or b"") + len(record.value or b"") + _headers_size(record.headers)


def _headers_size(headers: Headers) -> int:
    return sum(len(name) + len(value) for name, value in headers)


_REASONS = ("ms_reason", "ms_error", "ms_origin", "ms_service")
_ADDED_MAX = len(_REASONS) + 3


def _letter(
    service: str, record: Input, reason: str, error: str, origin: str, value: bytes | None = None
) -> Outgoing:
    texts = (reason, error[:ERROR_CHARS_MAX], origin, service)
    added = tuple((name, text.encode("utf-8", "replace")) for name, text in zip(_REASONS, texts, strict=True))
    topic = f"{record.topic}{DEAD_LETTER_SUFFIX}"
    return Outgoing(topic, record.key, value or record.value, record.headers + added)


def _split(headers: Headers) -> tuple[Headers, Headers]:
    """The record's own headers and what we added, which begins at the last of our first names."""
    found = (index for index, (name, _) in enumerate(headers) if name == _REASONS[0])
    at = max(found, default=len(headers))
    return headers[:at], headers[at:]


def _first(headers: Headers) -> Headers:
    """As many as have room."""
    kept: list[tuple[str, bytes]] = []
    left = HEADERS_BYTES_MAX
    for name, value in headers:
        left -= len(name) + len(value)
        if left < 0:
            break
        kept.append((name, value))
    return tuple(kept)
