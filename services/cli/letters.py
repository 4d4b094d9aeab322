"""Dead letters: read from their topics, sent again as they were, or put aside.

A dead letter is never removed before its time. It is settled by a record without value on the same topic
whose header `ms_settles` names it, so that every reader sees the same state, and who settled it and why.
"""

import getpass
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, replace

from confluent_kafka import KafkaException

from services.cli import targets
from services.cli.failure import Exit, Failed
from services.cli.log import Log, Stored
from services.contracts.envelope import Headers
from services.contracts.topics import DEAD_LETTER_SUFFIX
from services.runtime.blobs import BlobMissing, Blobs, BlobsUnavailable
from services.runtime.kafka import Publisher, PublishFailed
from services.runtime.processor.letters import unclaimed

SETTLES, SETTLED, SETTLED_BY, NOTE = "ms_settles", "ms_settled", "ms_settled_by", "ms_note"
RESENT, DISCARDED = "resent", "discarded"
REASONS = ("ms_reason", "ms_error", "ms_origin", "ms_service")
"""What a service adds to the headers of a record that it gives up on."""
CLAIM = BYTES, SHA256, CLAIMED = "ms_bytes", "ms_sha256", "ms_claim"
"""What it adds where the record does not fit: size and hash of the value, and where the whole record lies."""
REJECTED = "rejected"
"""The reason of a request that the manager refused. Its execution ended by that: sent again, nothing runs."""
SENT_WITHIN_S = 30.0


@dataclass(frozen=True)
class Letter:
    """A dead letter, and the record that settles it."""

    record: Stored
    settled_by: Stored | None

    @property
    def address(self) -> str:
        """`topic/partition/offset` on the dead-letter topic."""
        return self.record.address

    @property
    def topic(self) -> str:
        """Where the record came from."""
        return self.record.topic.removesuffix(DEAD_LETTER_SUFFIX)

    @property
    def reason(self) -> str:
        """The stable word."""
        return self.record.header("ms_reason") or "unknown"

    @property
    def state(self) -> str:
        """open, resent or discarded."""
        return "open" if self.settled_by is None else self.settled_by.header(SETTLED) or RESENT

    @property
    def original_headers(self) -> Headers:
        """The headers that the record had when it was given up."""
        headers = self.record.headers
        # Ours come last; a record may have brought headers of the same names.
        found = (index for index, (name, _) in enumerate(headers) if name == REASONS[0])
        return headers[: max(found, default=len(headers))]

    @property
    def added(self) -> Mapping[str, str]:
        """What the service that gave it up added to them."""
        added = self.record.headers[len(self.original_headers) :]
        return {name: value.decode("utf-8", "replace") for name, value in added}


def read(log: Log, topics: Sequence[str]) -> Iterator[Letter]:
    """Every letter of these dead-letter topics, each topic in order. Raises Failed and KafkaException."""
    records: dict[str, list[Stored]] = {topic: [] for topic in topics}
    for record in log.read(log.bounds(log.spots(topics))):
        records[record.topic].append(record)
    for topic in topics:
        settled = {record.header(SETTLES): record for record in records[topic] if _settles(record)}
        for record in records[topic]:
            if not _settles(record):
                yield Letter(record, settled.get(f"{record.partition}/{record.offset}"))


def _settles(record: Stored) -> bool:
    """A record that was given up may have brought such a header itself: only a letter has a reason."""
    return record.header(SETTLES) is not None and record.header(REASONS[0]) is None


def find(log: Log, address: str, topics: Sequence[str]) -> Letter:
    """The letter at `topic/partition/offset`. Raises Failed."""
    topic = address.partition("/")[0]
    if topic not in topics:
        known = ", ".join(topics)
        raise Failed(
            f"{address}: expected <topic>/<partition>/<offset> on one of {known}", Exit.USAGE_OR_CANCELLED
        )
    for letter in read(log, [topic]):
        if letter.address == address:
            return letter
    every = targets.command("dlq list --all")
    raise Failed(f"{address}: expected a dead letter, found none; `{every}` shows them")


def whole(letter: Letter, store: Callable[[], Blobs]) -> Stored:
    """The record of a letter as it was given up: where the letter holds only its head, from the blob store,
    which `store` opens. Headers are followed by those of the letter. Raises Failed."""
    if BYTES not in letter.added:
        return letter.record
    wanted = f"{letter.address}: expected the whole record of {letter.added[BYTES]} bytes in the blob store"
    if (claim := letter.added.get(CLAIMED)) is None:
        origin = letter.added.get("ms_origin")
        raise Failed(f"{wanted}, found that it was away; {origin} may still have it")
    try:
        key, value, headers = unclaimed(b"".join(store().read(claim)))
    except BlobMissing:
        raise Failed(f"{wanted}, found no {claim}") from None
    except BlobsUnavailable as error:
        raise Failed(f"{wanted}, found {error}") from None
    if hashlib.sha256(value or b"").hexdigest() != letter.added.get(SHA256):
        raise Failed(f"{wanted}, found other bytes in {claim}")
    ours = letter.record.headers[len(letter.original_headers) :]
    return replace(letter.record, key=key, value=value, headers=(*headers, *ours))


def resend(publisher: Publisher, letter: Letter, store: Callable[[], Blobs]) -> str:
    """Send the record again as it was, then settle it; where it lies now. Raises Failed.

    In this order: a crash in between leaves it open, and a second record of the same id changes nothing.
    """
    given_up = replace(letter, record=whole(letter, store))
    record = given_up.record
    keyless = -1 if record.key is not None else _origin_partition(letter)
    place = _send(publisher, letter.topic, record.key, record.value, given_up.original_headers, keyless)
    settle(publisher, letter, RESENT, place)
    return place


def settle(publisher: Publisher, letter: Letter, how: str, note: str) -> None:
    """Mark the letter as settled. Raises Failed."""
    record = letter.record
    pairs = {
        SETTLES: f"{record.partition}/{record.offset}",
        SETTLED: how,
        SETTLED_BY: getpass.getuser(),
        NOTE: note,
    }
    headers = tuple((name, text.encode()) for name, text in pairs.items())
    _send(publisher, record.topic, record.key, None, headers, record.partition)


def _origin_partition(letter: Letter) -> int:
    index = (letter.record.header("ms_origin") or "").split("/")[1:2]
    return int(index[0]) if index and index[0].isdigit() else -1


def _send(
    publisher: Publisher, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int
) -> str:
    try:
        stored = publisher.publish(topic, key, value, headers, partition).result(SENT_WITHIN_S)
    except (PublishFailed, KafkaException, Late) as error:
        raise Failed(
            f"{topic}: expected the broker to take the record, found {str(error) or 'no answer'}"
        ) from None
    return f"{stored.topic}/{stored.partition}/{stored.offset}"
