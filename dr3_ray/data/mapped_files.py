"""The Arrow files of a data set, mapped: shards as arrays by column, and the bytes in which rows lie."""

from bisect import bisect, bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from dr3_ray.data.arrow import read_batch
from dr3_ray.data.columns import Column, Columns, arrow_schema, part_column
from dr3_ray.data.frames import FRAMES, Framed, Stack, shard_layout
from dr3_ray.data.mapped import as_array
from dr3_ray.data.number_types import Array
from dr3_ray.data.paging import Extents, MappedFile, mapped_file
from dr3_ray.data.schema import MANIFEST, FileEntry, ShardEntry, damaged
from dr3_ray.errors import UserError

Shard = dict[str, Array | Framed]
"""The columns of a shard by their names on disk, [R, elements] or [R]."""


class MappedFiles:
    """The files of the data set in a folder, which stay open: `shards`, and the rows `ends` at which they end.

    Raises:
        UserError: a file is not what its entry says.
    """

    def __init__(self, folder: Path, entries: Sequence[ShardEntry], layout: Mapping[str, Column]) -> None:
        """Open the files of all shards, whose rows have the columns of `layout`."""
        self.of_shards: list[list[MappedFile]] = []
        self._folder, self._layout = folder, layout
        self._inodes: dict[Path, tuple[int, int]] = {}
        self.shards = [self._shard(entry) for entry in entries]
        self.ends: Array = np.cumsum([entry.rows for entry in entries])

    def check(self, entries: Iterable[FileEntry]) -> None:
        """Check that no file was cut short since it was opened.

        Raises:
            UserError: one was.
        """
        for entry in entries:
            path = self._folder / entry.file
            try:
                stat = path.stat()
            except OSError:
                continue
            if (stat.st_dev, stat.st_ino) == self._inodes.get(path) and stat.st_size < entry.bytes:
                raise damaged(self._folder, f"{entry.file} was cut to {stat.st_size} bytes while it was read")

    def batch(self, entry: FileEntry, schema: pa.Schema) -> pa.RecordBatch:
        """Open a file of one record batch.

        Raises:
            UserError: it is not what its entry says.
        """
        path = self._folder / entry.file
        try:
            stat = path.stat()
        except OSError:
            raise damaged(self._folder, f"{entry.file} is missing") from None
        if stat.st_size != entry.bytes:
            raise damaged(self._folder, f"{entry.file} has {stat.st_size} bytes instead of {entry.bytes}")
        self._inodes[path] = stat.st_dev, stat.st_ino
        try:
            batch = read_batch(path, schema)
        except UserError:
            raise
        except ValueError as error:
            raise damaged(self._folder, f"{entry.file} {error}") from None
        if batch.num_rows != entry.rows:
            raise damaged(self._folder, f"{entry.file} has {batch.num_rows} rows, the manifest says {entry.rows}")
        return batch

    def extents(self, starts: Array, stops: Array, stored: Sequence[str]) -> Iterator[Extents]:
        """Yield the bytes in which runs of rows lie, as `Dataset.extents` does."""
        firsts = [0, *self.ends.tolist()]
        for number in range(bisect(firsts, starts[0]) - 1, bisect_left(firsts, stops[-1])):
            first, after = np.searchsorted(stops, firsts[number], "right"), np.searchsorted(starts, firsts[number + 1])
            low, high = (places[first:after] - firsts[number] for places in (starts, stops))
            low, high = np.maximum(low, 0), np.minimum(high, firsts[number + 1] - firsts[number])
            for name in stored if len(low) else ():
                column = self.shards[number][name]
                if not isinstance(column, Framed):
                    bits = self._layout[name].is_bit
                    yield from self._lying(number, column, low // 8 if bits else low, -(-high // 8) if bits else high)
                else:
                    yield from self._lying(number, column.starts, low, high)
                    yield from self._lying(number, column.frames, *column.frames_of(low, high))

    def _shard(self, entry: ShardEntry) -> Shard:
        self.of_shards.append([])
        once = {frames.part: frames for frames in entry.frames or ()}
        columns = self._columns(entry, shard_layout(self._layout, once))
        stored: Shard = {**columns}
        for part, frames in once.items():
            stack = Stack(frames.stack, frames.axis)
            column = self._layout.get(part_column("observations", part))
            if column is None or not stack.fits(column):
                raise damaged(self._folder, f"{MANIFEST} has frames in {frames.file} that are not of its observations")
            whole = self._columns(frames, {"frames": stack.frame(column)})["frames"]
            for name, indices in FRAMES.items():
                framed = Framed(column, stack, whole, columns[part_column(indices, part)])
                if framed.out_of_bounds():
                    raise damaged(self._folder, f"{entry.file} has rows whose frames are not in {frames.file}")
                stored[part_column(name, part)] = framed
        return stored

    def _columns(self, entry: FileEntry, layout: Mapping[str, Column]) -> Columns:
        batch = self.batch(entry, arrow_schema(layout))
        self.of_shards[-1].append(mapped_file(self._folder / entry.file, batch))
        try:
            return {name: as_array(batch.column(name), column, entry.rows) for name, column in layout.items()}
        except ValueError:
            raise damaged(self._folder, f"{entry.file} holds fewer values than rows") from None

    def _lying(self, number: int, values: Array, low: Array, high: Array) -> Iterator[Extents]:
        """Yield where elements of a column of a shard lie, if it is mapped."""
        size = values[:1].nbytes
        for file in self.of_shards[number]:
            if 0 <= (at := values.ctypes.data - file.address) < file.size:
                yield Extents(file, at + size * low, at + size * high)
