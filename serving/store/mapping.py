"""The pages of a mapped file, entered into this process before they are first asked for.

SQLite reads its file through a mapping (`serving.store.database`). The first look at each 64 KB of
it enters sixteen pages into the process, which takes as long as a small statement, and a decision
meets ten such places until all are entered: a third of what its reads cost. All at once they take
50 ms per GB that the system has in memory.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
_POPULATE_READ: Final = 22
"""``MADV_POPULATE_READ`` of Linux 5.14 and later (``<linux/mman.h>``)."""


def enter_pages(file: str, *, at_most_bytes: int = 2**31) -> int:
    """Enter the pages of every mapping that this process has of a file; returns how many bytes.

    Changes nothing but the time of what is read next. What the system has not in memory is read
    from the disk, so of each mapping only the first ``at_most_bytes`` are entered. Needs no lock of
    the interpreter. Where the system cannot do it, nothing is done and 0 is returned.

    >>> enter_pages("/no/such/file")
    0
    """
    name, entered = os.path.realpath(file), 0
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    for line in lines:
        # Address, rights, offset, device, inode, path: which may hold blanks.
        columns = line.split(maxsplit=5)
        if len(columns) == 6 and columns[5] == name and columns[1].startswith("r"):
            begin, end = (int(address, 16) for address in columns[0].split("-"))
            size = min(end - begin, at_most_bytes)
            entered += size if _advise(begin, size) else 0
    return entered


def _advise(address: int, size: int) -> bool:
    try:
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return False
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return bool(advise(address, size, _POPULATE_READ) == 0)
