"""The loop's outbox row: what is packed comes back, whoever packed it."""

import msgspec

from services.contracts.envelope import Outgoing
from services.runtime.processor.outbox import pack, unpack

RECORDS = (
    Outgoing("execution.events", b"key", b"value", (("ce_type", b"x"), ("ms_chain", b""))),
    Outgoing("definition.state", None, None),
)


def test_records_come_back_as_they_were() -> None:
    assert unpack(pack(RECORDS)) == RECORDS
    assert unpack(pack(())) == ()


def test_a_row_of_before_rows_were_compressed_is_read() -> None:
    assert unpack(msgspec.msgpack.encode(RECORDS)) == RECORDS


def test_a_batch_of_alike_records_takes_a_fraction_of_its_size() -> None:
    many = RECORDS * 100
    assert len(pack(many)) < len(msgspec.msgpack.encode(many)) / 5
