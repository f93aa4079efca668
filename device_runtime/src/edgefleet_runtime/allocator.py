"""One heap for all threads of a runtime's process, where the C library is glibc.

glibc gives each thread an arena, up to eight a core. What the largest messages took in the arena of
a thread of grpc stays there, free but of no use to others, and another thread's arena grows by the
same again: a busy server creeps up for as long as it runs
(https://sourceware.org/glibc/wiki/MallocInternals, "Arenas and Heaps"). Rules kept here:

- Only a process that is the runtime's own is told so; a program that opens a `Runtime` decides for
  itself.
- Whoever has set ``MALLOC_ARENA_MAX``, or glibc's tunable for it, has decided.
"""

from __future__ import annotations

import os
import sys

_M_ARENA_MAX = -8  # of glibc's <malloc.h>


def share_heap() -> bool:
    """Keep threads that come from arenas of their own; tells whether it did.

    To be called while there are no others: an arena that is there stays, and in time glibc no
    longer asks how many there may be.
    """
    decided = "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc.arena_max" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if decided or sys.platform != "linux":
        return False
    import ctypes  # noqa: PLC0415 - numpy loads it as well, what doesn't run a model needn't

    try:
        tell = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has one heap as it is
        return False
    return bool(tell(_M_ARENA_MAX, 1))
