"""How the C library keeps the memory of threads that make and serve files."""

import ctypes
from contextlib import suppress

ARENAS = 2
LARGE_BYTES = 128 * 1024
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # glibc's malloc.h


def share_arenas() -> None:
    """Have all threads allocate from ARENAS places. To be called before there are any threads.

    glibc gives threads arenas by turns, eight for each processor, and each arena keeps a megabyte or two of
    what was freed: a thread for each file fills one after the other, export by export. With one arena an
    export of 5,000,000 rows took a tenth longer, with two about as long as with sixteen. Other C libraries
    have nothing of the kind.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)


def return_large() -> None:
    """Have what takes LARGE_BYTES or more go back to the system as soon as it is freed.

    glibc does so until the first of them is freed, and from then on keeps the like of it, thread by thread: a
    process that had sent files to many clients at once stayed as large as it had been then.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
