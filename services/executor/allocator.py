"""How the C library keeps the memory of the threads that make files."""

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8  # glibc's malloc.h


def share_one_arena() -> None:
    """Have all threads allocate from one place. To be called before there are any.

    glibc gives threads arenas by turns, and each arena keeps a megabyte or two of what was freed. A thread
    for each file fills one after the other. The threads of a worker compute in turns, and have a cache each
    for small pieces: one arena is no bottleneck. Other C libraries have nothing of the kind.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
