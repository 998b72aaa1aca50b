"""Files mapped back to back into one array: rows of many files are read by one gather, or written.

The maps are read-only and shared: all processes of a machine use the same pages.
"""

import ctypes
import errno
import mmap
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO

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
LIBC.writev.restype = ctypes.c_ssize_t
LIBC.writev.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
IOV_MAX = 1024  # stretches that the kernel takes in one call


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


def write_spans(file: IO[bytes], values: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
    """Write the stretches values[start:end], [n] int64 each, to the file, back to back.

    The kernel copies from the map to the file: neither a loop nor a copy of the data in Python.
    """
    file.flush()
    spans = np.empty((len(starts), 2), np.uint64)  # struct iovec: address, bytes
    spans[:, 0] = values.ctypes.data + values.itemsize * starts
    spans[:, 1] = values.itemsize * (ends - starts)
    reached = np.cumsum(spans[:, 1], dtype=np.int64)
    total, done, first = int(reached[-1]) if len(spans) else 0, 0, 0
    while done < total:
        place = spans.ctypes.data + 16 * first
        count = min(IOV_MAX, len(spans) - first)
        written = LIBC.writev(file.fileno(), place, count)
        if written < 0 and ctypes.get_errno() == errno.EINTR:
            continue
        if written < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), file.name)
        done += written
        first = int(reached.searchsorted(done, side="right"))
        if first < len(spans):  # the kernel may stop in the middle of a stretch
            left = np.uint64(reached[first] - done)
            spans[first] = spans[first, 0] + spans[first, 1] - left, left


def _mmap(address: int | None, size: int, flags: int, descriptor: int) -> int:
    found = LIBC.mmap(address, size, mmap.PROT_READ, flags, descriptor, 0)
    if found == FAILED:
        raise EnvironmentFault(
            f"{size:,} bytes of files cannot be mapped ({os.strerror(ctypes.get_errno())})",
            fix="lift the limit on address space (ulimit -v unlimited)",
        )
    return found
