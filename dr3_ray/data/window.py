"""The window of a data set from which batches are drawn: blocks of neighbouring rows that change as training goes on.

A data set of N rows is cut into n blocks of equal size, up to one row. A pass is a random order of all blocks; passes
follow each other without end. At update t of batches of B rows, the window holds the W blocks from place ⌊t·B·n/N⌋ of
that sequence on, and rows are drawn from it uniformly, with replacement. So a pass takes N/B updates, in which each row
is drawn once in expectation, as in uniform sampling.

Every block enters once a pass, and stays for W of its moves. Between two passes a block may be in the window twice;
its rows are then drawn twice as often. All is a function of the data's rows, the options and the update: not of seeds.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dr3_ray.data.number_types import Array

BLOCKS = 64  # of a window, at least
USUAL_BLOCKS = 1024  # of a window, where the bounds of a block's bytes allow it
BLOCK_BYTES = 2**18, 2**22  # of a block: enough for a disk to be fast, few enough to mix
BLOCK_ROWS = 16  # of a block at least, however large they are: finding and mapping one takes half a millisecond


class Blocks(NamedTuple):
    """Blocks of a window, in the order in which they leave: of each its first row, and its number of rows."""

    starts: Array
    sizes: Array


class Walk:
    """The windows of some rows, from `start` on, that are passed through once while `draws` rows are drawn.

    Args:
        rows: how many there are.
        window: of how many rows a window has to be at most; one block at least.
        row_bytes: of one row, by which blocks are cut.
        draws: of a pass; of one data set `rows`.
        start: the first of the rows.
        key: tells walks apart that go on beside each other.
    """

    def __init__(self, rows: int, window: int, row_bytes: int, draws: int, start: int = 0, key: int = 0) -> None:
        block = block_rows(window, row_bytes)
        self.n = -(-rows // block)
        self.length = max(1, min(self.n, window // -(-rows // self.n)))
        self.rows, self.start, self._draws, self._key = rows, start, draws, key

    def place(self, drawn: int) -> int:
        """Return the place in the sequence of blocks at which the window begins after so many draws."""
        return drawn * self.n // self._draws

    def blocks(self, first: int, stop: int) -> Blocks:
        """Return the blocks at these places of the sequence."""
        passes = range(first // self.n, (stop - 1) // self.n + 1)
        numbers = np.concatenate(
            [
                order_of(self.n, self._key, number)[max(first - number * self.n, 0) : stop - number * self.n]
                for number in passes
            ]
        )
        size, more = divmod(self.rows, self.n)  # the first blocks have a row more
        return Blocks(self.start + numbers * size + np.minimum(numbers, more), size + (numbers < more))


class Table(NamedTuple):
    """Rows of a window by their number in it, those of each part one after the other."""

    rows: Tensor
    """[parts], of each part."""
    before: Tensor
    """[parts], how many come before each part."""
    ends: Tensor
    """[blocks], how many there are up to the end of each block."""
    shifts: Tensor
    """[blocks], what a number in the window differs from the number of its row in the data set."""

    @classmethod
    def of(cls, parts: Sequence[Blocks], device: torch.device | str = "cpu") -> "Table":
        """Return the table of the blocks of each part."""
        starts, sizes = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        ends, rows = sizes.cumsum(), np.array([part.sizes.sum() for part in parts])
        columns = rows, rows.cumsum() - rows, ends, starts - (ends - sizes)
        return cls(*(torch.from_numpy(column).to(device) for column in columns))

    def row(self, drawn: Tensor, part: Tensor) -> Tensor:
        """Return the rows of the data set that were `drawn` below the `rows` of these parts, of one shape each."""
        numbers = drawn + self.before[part]
        return numbers + self.shifts[torch.searchsorted(self.ends, numbers, right=True)]


def block_rows(window: int, row_bytes: int) -> int:
    """Return how many rows a block has: a window has 1,024, or as many as the bounds of their bytes allow, but 64."""
    least, most = (max(1, size // row_bytes) for size in BLOCK_BYTES)
    return max(1, min(window // BLOCKS, max(least, BLOCK_ROWS, min(most, window // USUAL_BLOCKS))))


@lru_cache(maxsize=16)
def order_of(n: int, key: int, number: int) -> Array:
    """Return the order of n blocks in the pass of this number.

    Only the raw numbers of a bit generator are the same in every version of numpy; a permutation need not be.
    """
    source = np.random.PCG64(np.random.SeedSequence([key, number, *b"window"]))
    order: Array = np.argsort(source.random_raw(n), kind="stable")
    return order


class Window:
    """The rows from which batches of B rows are drawn at an update, for every member alike.

    A mixture has a walk for each part, in which all of them pass through their rows in the same number of updates.

    Args:
        rows: of each part of the data, which lie one after the other.
        window: of how many rows the window has to be at most.
        row_bytes: of one row.
        batch_size: B.
    """

    def __init__(self, rows: Sequence[int], window: int, row_bytes: int, batch_size: int) -> None:
        total, starts = sum(rows), accumulate(rows, initial=0)
        self.walks = [
            Walk(count, max(1, window * count // total), row_bytes, total, start, key)
            for key, (count, start) in enumerate(zip(rows, starts, strict=False))
        ]
        self._batch_size = batch_size
        self._latest: tuple[Any, Table] | None = None

    def places(self, first: int, n: int = 1) -> list[tuple[int, int]]:
        """Return from which place up to which one of each walk the blocks are in the window, at `n` updates."""
        drawn = first * self._batch_size, (first + n - 1) * self._batch_size
        return [(walk.place(drawn[0]), walk.place(drawn[1]) + walk.length) for walk in self.walks]

    def table(self, step: int, device: torch.device) -> Table:
        """Return the rows of the window at an update."""
        places = self.places(step)
        if self._latest is None or self._latest[0] != places:
            parts = [walk.blocks(*place) for walk, place in zip(self.walks, places, strict=True)]
            self._latest = places, Table.of(parts, device)
        return self._latest[1]
