"""How this process keeps the memory that it frees.

Every turn of a loaded broker allocates buffers of a hundred kilobytes and more (the arena, messages
of peers) and frees them within milliseconds. Left alone, the C library gives such memory back to
the system each time, and the next turn pays for clean pages: measured, a quarter of the CPU of full
batches of 1 KB records. So a bounded amount of what was freed stays with the process.
"""

from __future__ import annotations

import ctypes

from cluster.limits import FREED_BYTES_KEPT, MAPPED_ALONE_BYTES

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


def keep_freed_memory() -> bool:
    """Keep up to `FREED_BYTES_KEPT` of freed memory per heap; False where malloc is not glibc's."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Each call also ends glibc's own moving of both thresholds.
    alone = mallopt(_M_MMAP_THRESHOLD, ctypes.c_int(MAPPED_ALONE_BYTES))
    kept = mallopt(_M_TRIM_THRESHOLD, ctypes.c_int(FREED_BYTES_KEPT))
    return bool(alone and kept)
