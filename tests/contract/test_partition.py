"""The partition of a key: Kafka's own test values, since whoever disagrees breaks order for everybody."""

import pytest

from services.contracts.partition import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "expected"),  # org.apache.kafka.common.utils.UtilsTest, signed there
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF
    assert partition_of(key, 12) == (expected & 0x7FFFFFFF) % 12
