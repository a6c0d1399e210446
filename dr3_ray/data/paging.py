"""Pages of mapped files: brought into memory before they are used, and let go of after it."""

import ctypes
import mmap
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dr3_ray.data.number_types import Array

POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14: read the pages and map them, or fail
SLICE = 2**17  # bytes that are asked for at a time: of more than its readahead, a kernel may read a part
READ = 2**20  # bytes that are read at a time, where pages cannot be mapped before they are used


class MappedFile(NamedTuple):
    """A file whose content is mapped at an address."""

    path: Path
    address: int
    size: int


class Extents(NamedTuple):
    """Bytes of a file: from each of `starts` [E] up to that of `stops` [E], which grow."""

    file: MappedFile
    starts: Array
    stops: Array


def mapped_file(path: Path, batch: pa.RecordBatch) -> MappedFile:
    """Return the file whose content the columns of a record batch are views of."""
    buffer = next(buffer for buffer in batch.column(0).buffers() if buffer is not None)
    while buffer.parent is not None:
        buffer = buffer.parent
    return MappedFile(path, buffer.address, buffer.size)


class Pages:
    """The pages of mapped files that are wanted: those of all extents that were brought and not let go of since.

    A page that several extents touch stays until the last of them goes.
    """

    def __init__(self, files: Iterable[MappedFile]) -> None:
        """Let go of all pages; one that is not brought is read alone when it is used, without its neighbours."""
        self._wanted: dict[MappedFile, Array] = {}
        for file in files:
            self._wanted[file] = np.zeros(-(-file.size // mmap.PAGESIZE), np.uint16)
            if hasattr(mmap, "MADV_RANDOM"):
                _advise(file, 0, file.size, mmap.MADV_RANDOM)
            _drop(file, [(0, file.size)])

    def bring(self, extents: Iterable[Extents]) -> None:
        """Read these bytes, and return when they are in memory.

        Raises:
            OSError: they cannot be read.
        """
        for file, ranges in _by_file(extents):
            wanted = self._wanted[file]
            for first, stop in ranges:
                wanted[first:stop] += 1
            _read(file, [_bytes(file, *extent) for extent in ranges])

    def let_go(self, extents: Iterable[Extents]) -> None:
        """Free the memory of these bytes, where nobody else on the machine has them mapped."""
        for file, ranges in _by_file(extents):
            wanted, free = self._wanted[file], []
            for first, stop in ranges:
                wanted[first:stop] -= 1
                free += [(first + start, first + end) for start, end in _runs(np.flatnonzero(wanted[first:stop] == 0))]
            _drop(file, [_bytes(file, *extent) for extent in free])

    @property
    def wanted(self) -> int:
        """How many bytes are wanted now."""
        return sum(int(np.count_nonzero(flags)) for flags in self._wanted.values()) * mmap.PAGESIZE


def runs_of(numbers: Array, longer: int = 0, end: int | None = None) -> tuple[Array, Array]:
    """Return where runs of ascending numbers start and stop, each `longer` by some, but none beyond the `end`."""
    if numbers[-1] - numbers[0] + 1 == len(numbers):  # one run, in most cases
        starts, stops = numbers[:1], numbers[-1:] + 1
    else:
        breaks = np.diff(numbers) > 1
        starts, stops = numbers[np.append(True, breaks)], numbers[np.append(breaks, True)] + 1
    return starts, stops if end is None else np.minimum(stops + longer, end)


def _by_file(extents: Iterable[Extents]) -> list[tuple[MappedFile, list[tuple[int, int]]]]:
    """Return the ranges of pages of each file, those that meet as one."""
    pages: dict[MappedFile, list[tuple[int, int]]] = {}
    for file, starts, stops in extents:
        first, stop = starts // mmap.PAGESIZE, -(-stops // mmap.PAGESIZE)
        if len(first) > 1:
            apart = first[1:] > stop[:-1]
            first, stop = first[np.append(True, apart)], stop[np.append(apart, True)]
        pages.setdefault(file, []).extend(zip(first.tolist(), stop.tolist(), strict=True))
    return list(pages.items())


def _runs(numbers: Array) -> list[tuple[int, int]]:
    if not len(numbers):
        return []
    starts, stops = runs_of(numbers)
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def _bytes(file: MappedFile, first: int, stop: int) -> tuple[int, int]:
    return first * mmap.PAGESIZE, min(stop * mmap.PAGESIZE, file.size)


def _read(file: MappedFile, ranges: Sequence[tuple[int, int]]) -> None:
    with suppress(FileNotFoundError):  # it was removed since: what is mapped is read when it is used
        number = os.open(file.path, os.O_RDONLY)
        try:
            if hasattr(os, "posix_fadvise"):  # all of them at once, so that the disk has a choice
                for start, stop in ranges:
                    for at in range(start, stop, SLICE):
                        os.posix_fadvise(number, at, min(SLICE, stop - at), os.POSIX_FADV_WILLNEED)
            for start, stop in ranges:
                if not _advise(file, start, stop, POPULATE_READ):
                    for at in range(start, stop, READ):
                        os.pread(number, min(READ, stop - at), at)
        finally:
            os.close(number)


def _drop(file: MappedFile, ranges: Sequence[tuple[int, int]]) -> None:
    if not ranges or not hasattr(os, "posix_fadvise"):
        return
    with suppress(FileNotFoundError):
        number = os.open(file.path, os.O_RDONLY)
        try:
            for start, stop in ranges:
                _advise(file, start, stop, mmap.MADV_DONTNEED)
                os.posix_fadvise(number, start, stop - start, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(number)


def _advise(file: MappedFile, start: int, stop: int, advice: int) -> bool:
    """Give the system an advice about mapped bytes; return whether it took it."""
    madvise = _madvise()
    if madvise is None:
        return False
    result: int = madvise(file.address + start, stop - start, advice)
    return result == 0


@cache
def _madvise() -> "ctypes._NamedFuncPointer | None":
    """Return the C library's function; Python's own is a method of maps that Python made."""
    try:
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return madvise
