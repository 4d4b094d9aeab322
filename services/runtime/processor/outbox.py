"""How an index's outbox row keeps the records of its last batch."""

from collections.abc import Sequence

import msgspec
from backports import zstd

from services.contracts.envelope import Outgoing

_COMPRESSED = b"\x28\xb5\x2f\xfd"
"""How a zstd frame begins, and MessagePack's arrays do not: rows of before are told apart by it."""


def pack(records: Sequence[Outgoing]) -> bytes:
    """The bytes of the row; no bytes for no records.

    Compressed, a row is a seventh of its size, for 2 us a job; each byte less is spared by the statement's
    text, its parser, the write-ahead log and the table.
    """
    return zstd.compress(msgspec.msgpack.encode(records), 1) if records else b""


def unpack(body: bytes) -> tuple[Outgoing, ...]:
    """The records, byte for byte as they were."""
    if body.startswith(_COMPRESSED):
        body = zstd.decompress(body)
    return msgspec.msgpack.decode(body, type=tuple[Outgoing, ...]) if body else ()
