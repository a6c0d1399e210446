"""A data set's rows in a window: read by a thread before they are drawn, and let go of when the window has moved on."""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from torch import Tensor

from dr3_ray.data.number_types import Array
from dr3_ray.data.paging import Extents, Pages, runs_of
from dr3_ray.data.reader import Dataset
from dr3_ray.data.window import Walk
from dr3_ray.errors import UserError
from dr3_ray.process.memory import memory_limit

AHEAD = 8  # for so many blocks of a window one more is read ahead
SMALL = 256  # columns with less than this fraction of a row's bytes are held whole: their blocks are parts of pages
USABLE = 0.8  # of the memory, beside what the process itself needs
SUGGESTED = 0.2  # of it for a window: another trial may want as much


def warn_of_size(data: Dataset, columns: Sequence[str], window: int, limit: int | None = None) -> None:
    """Warn where the rows from which batches are drawn do not fit into memory; `window` of them, 0: all.

    `limit` is the memory in bytes; None: what there is.
    """
    limit, row_bytes = limit or memory_limit(), sum(data.stored_bytes(columns).values())
    rows = min(window or len(data), len(data))
    if limit is None or rows * row_bytes <= USABLE * limit:
        return
    what = f"a window of {window:,} rows" if rows < len(data) else f"{data.manifest.name[:80]}"
    fitting = int(float(f"{SUGGESTED * limit / row_bytes:.1g}"))
    warnings.warn(
        f"{what} takes {rows * row_bytes / 2**30:.3g} GiB and there are {limit / 2**30:.3g} of memory: every batch "
        f"waits for the disk; shuffle_window={fitting} draws from rows that are in memory",
        stacklevel=2,
    )


class ReadAhead:
    """The rows in the windows of some walks over a data set, held in memory with a few blocks more.

    Columns that take next to nothing are held whole. Of transitions over several steps, `n_step`, the rows that follow
    are held too.
    """

    def __init__(self, data: Dataset, columns: Sequence[str], walks: Sequence[Walk], n_step: int) -> None:
        """Let go of what is in memory of the files."""
        self._data, self._walks, self._longer = data, walks, n_step - 1
        sizes = data.stored_bytes(columns)
        small = [name for name, size in sizes.items() if size * SMALL < sum(sizes.values())]
        self._columns = [name for name in sizes if name not in small]
        self._held: list[dict[int, Future[None]]] = [{} for _ in walks]  # blocks by walk and place
        self._places: Sequence[tuple[int, int]] = [(0, 0)] * len(walks)  # that are in memory
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._pages = Pages(file for whole in data.wholes for file in whole.mapped_files)
        for whole in data.wholes:
            self._pages.bring(whole.extents(np.array([0]), np.array([len(whole)]), small))

    def hold(self, places: Sequence[tuple[int, int]]) -> None:
        """Wait until the blocks from a place up to another one are in memory, of each walk, and read on from there.

        All others are let go of.

        Raises:
            UserError: they cannot be read.
        """
        if self._places == places:
            return
        for walk, held, (first, stop) in zip(self._walks, self._held, places, strict=True):
            wanted = range(first, stop + max(1, walk.length // AHEAD))
            for place in [place for place in held if place not in wanted]:
                if not held.pop(place).cancel():
                    self._reader.submit(self._let_go, walk, place)
            for place in wanted:
                if place not in held:
                    held[place] = self._reader.submit(self._bring, walk, place)
        for held, before, (first, stop) in zip(self._held, self._places, places, strict=True):
            for place in range(first, stop):
                if not before[0] <= place < before[1]:
                    self._wait(held[place])
        self._places = places

    @contextmanager
    def holding(self, rows: Tensor) -> Iterator[None]:
        """Have these rows in memory while the context lasts.

        Raises:
            UserError: they cannot be read.
        """
        distinct = np.unique(rows.numpy())
        self._wait(self._reader.submit(lambda: self._pages.bring(self._extents(distinct))))
        yield
        self._reader.submit(lambda: self._pages.let_go(self._extents(distinct)))

    def _wait(self, read: "Future[None]") -> None:
        try:
            read.result()
        except OSError as error:
            self._data.check_files()
            raise UserError(f"{self._data.path} cannot be read: {error.strerror}") from None

    def _bring(self, walk: Walk, place: int) -> None:
        self._pages.bring(self._extents(_rows(walk, place)))

    def _let_go(self, walk: Walk, place: int) -> None:
        self._pages.let_go(self._extents(_rows(walk, place)))

    def _extents(self, rows: Array) -> Iterator[Extents]:
        for whole, lying in self._data.on_disk(rows):
            yield from whole.extents(*runs_of(lying, self._longer, len(whole)), self._columns)


def _rows(walk: Walk, place: int) -> Array:
    blocks = walk.blocks(place, place + 1)
    return np.arange(blocks.starts[0], blocks.starts[0] + blocks.sizes[0])
