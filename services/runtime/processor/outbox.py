"""How an index's outbox row keeps the records of its last batch."""

from collections.abc import Sequence

import msgspec

from services.contracts.envelope import Outgoing
from services.runtime.processor.squeeze import restored, squeezed


def pack(records: Sequence[Outgoing]) -> bytes:
    """The bytes of the row; no bytes for no records."""
    return squeezed(msgspec.msgpack.encode(records)) if records else b""


def unpack(body: bytes) -> tuple[Outgoing, ...]:
    """The records, byte for byte as they were."""
    return msgspec.msgpack.decode(restored(body), type=tuple[Outgoing, ...]) if body else ()
