"""What the loop's rows keep compressed: it comes back, whoever wrote it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.envelope import Outgoing
from services.runtime.processor.outbox import pack, unpack
from services.runtime.processor.squeeze import SMALL_BYTES, restored, squeezed

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


@given(st.binary(max_size=3 * SMALL_BYTES))
def test_any_bytes_come_back(body: bytes) -> None:
    assert restored(squeezed(body)) == body


@pytest.mark.parametrize("size", [0, 1, 5 * SMALL_BYTES], ids=str)
def test_bytes_that_look_compressed_come_back(size: int) -> None:
    body = squeezed(bytes(2 * SMALL_BYTES))[:4] + bytes(size)
    assert restored(squeezed(body)) == body


def test_a_small_state_is_kept_as_it_is() -> None:
    assert squeezed(b"small") == b"small"
