"""Files mapped back to back into one array: rows of many files are read by one gather.

The maps are read-only and shared: all processes of a machine use the same pages.
"""

import ctypes
import mmap
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from data_utils.errors import EnvironmentFault

MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000  # Linux; not in the mmap module of Python 3.11
FAILED = ctypes.c_void_p(-1).value
# Python's own mmap keeps a descriptor open for each map: 250 shards would use up the common limit
# of 1,024 open files.
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Region:
    """A range of addresses, zeros at first, that lives as long as an array made from it."""

    def __init__(self, size: int) -> None:
        self.address, self.size = None, size
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self.address = _mmap(None, size, flags, -1)
        self.__array_interface__ = {
            "data": (self.address, True),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }

    def put(self, place: int, path: Path, size: int) -> None:
        """Map the first size bytes of a file to a place that is a multiple of the page size."""
        with open(path, "rb") as file:
            flags = mmap.MAP_SHARED | MAP_FIXED
            _mmap(self.address + place, size, flags, file.fileno())

    def __del__(self) -> None:
        if self.address is not None:
            LIBC.munmap(self.address, self.size)


def map_files(paths: Sequence[Path], sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(bytes [all] uint8, place of each file's first byte [files] int64).

    sizes: of the files, in bytes. Each file begins a page; zeros lie behind it, and behind the
    last one as many as the longest file has bytes: a window of a file's length may begin anywhere
    in a file.
    """
    pages = [-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in (*sizes, max(sizes, default=0))]
    starts = [0, *accumulate(pages)]
    region = Region(starts[-1] + mmap.PAGESIZE)
    for path, size, start in zip(paths, sizes, starts, strict=False):
        if size:
            region.put(start, path, size)
    return np.asarray(region), np.array(starts[: len(paths)], np.int64)


def _mmap(address: int | None, size: int, flags: int, descriptor: int) -> int:
    found = LIBC.mmap(address, size, mmap.PROT_READ, flags, descriptor, 0)
    if found == FAILED:
        raise EnvironmentFault(
            f"{size:,} bytes of files cannot be mapped ({os.strerror(ctypes.get_errno())})",
            fix="lift the limit on address space (ulimit -v unlimited)",
        )
    return found
