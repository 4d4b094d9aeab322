"""Where a key belongs: the hash that every producer of ours, and the Java client, uses."""

import struct
from functools import lru_cache

_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


@lru_cache(maxsize=16_384)  # an execution's records follow each other, and the hash is slow in Python
def partition_of(key: bytes, count: int) -> int:
    """The partition of a key among `count`, by murmur2 as Kafka's default partitioner defines it."""
    return (murmur2(key) & 0x7FFFFFFF) % count


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, unsigned."""
    length = len(data)
    h = _SEED ^ length
    for word in struct.unpack_from(f"<{length // 4}I", data):
        k = (word * _M) & _MASK
        h = ((h * _M) ^ ((k ^ (k >> 24)) * _M)) & _MASK
    if tail := data[length & ~3 :]:
        h = ((h ^ int.from_bytes(tail, "little")) * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)
