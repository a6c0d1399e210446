"""The files of a data set: shards as rows come in, and the table of episodes."""

import hashlib
import mmap
import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from dr3_ray.data.columns import Column, Columns, arrow_schema, columns_of
from dr3_ray.data.episodes import checked
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import SHARDS, FileEntry
from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.data.tally import Tally
from dr3_ray.errors import UserError

SHARD_BYTES = 256 * 2**20  # the memory of who writes: one shard


def rows_of(shard_bytes: int, observation_space: SpaceSpec, action_space: SpaceSpec) -> int:
    """Return how many rows a shard of so many bytes has."""
    return max(1, shard_bytes // row_bytes(observation_space, action_space))


def row_bytes(observation_space: SpaceSpec, action_space: SpaceSpec) -> int:
    """Return the bytes of a row on disk."""
    return sum(column.row_bytes for column in columns_of(observation_space, action_space).values())


class ShardFiles:
    """Consecutive episodes on their way into files of a folder, and a tally of them.

    The files are called `name` with a number, from 0. Memory holds one shard.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        observation_space: SpaceSpec,
        action_space: SpaceSpec,
        gamma: float,
        rows_per_shard: int,
    ) -> None:
        self.entries: list[FileEntry] = []
        self.tally = Tally(observation_space, action_space)
        self._folder, self._name, self._rows_per_shard = folder, name, rows_per_shard
        self._action_space, self._gamma = action_space, gamma
        self._layout = columns_of(observation_space, action_space)
        self._rounded = [
            name
            for name, column in self._layout.items()
            if column.dtype == np.float32 and name.startswith(("observations", "next_observations", "rewards"))
        ]
        self._fill = 0
        # Reserved, not yet touched: memory is used as the rows come in.
        self._buffers = {
            name: np.empty((rows_per_shard, *column.row_shape), np.uint8 if column.packed else column.dtype)
            for name, column in self._layout.items()
        }

    def write(self, columns: Columns, keep: Array | None = None) -> None:
        """Append one complete episode, or only its rows where the boolean mask `keep` [T] is true.

        `columns` are those of `episode_columns`, actions as stored. Episode ids have to grow from call to call.

        Raises:
            UserError: they are not acceptable (see `episodes.checked`), or there are too many shards.
        """
        given, columns = columns, checked(columns, self._layout, self._action_space, self._gamma)
        for name in self._rounded:
            if not np.can_cast((source := np.asarray(given[name])).dtype, np.float32):
                self.tally.rounding.add(name.removeprefix("next_"), source, columns[name])
        episode, last = int(columns["episode_ids"][0]), self.tally.last_episode
        if episode <= last:
            raise UserError(f"episode {episode} comes after episode {last}: number episodes upwards")
        columns = self.tally.add(columns, keep)
        rows = len(columns["rewards"])
        stored = {name: _as_stored(column, columns[name]) for name, column in self._layout.items()}
        start = 0
        while start < rows:
            count = min(rows - start, self._rows_per_shard - self._fill)
            for name, values in stored.items():
                self._buffers[name][self._fill : self._fill + count] = values[start : start + count]
            start += count
            self._fill += count
            if self._fill == self._rows_per_shard:
                self.flush()

    def flush(self) -> None:
        """Write the rows that are still in memory."""
        if not self._fill:
            return
        if len(self.entries) == SHARDS:
            raise UserError(f"these are more than {SHARDS:,} shards: raise rows_per_shard")
        arrays = [_to_arrow(column, self._buffers[name][: self._fill]) for name, column in self._layout.items()]
        batch = pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(self._layout))
        self.entries.append(write_batch(self._folder / f"{self._name}{len(self.entries):05d}.arrow", batch))
        self._fill = 0


def write_batch(path: Path, batch: pa.RecordBatch) -> FileEntry:
    """Write an Arrow file of one record batch, and wait until it is on disk."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return _synchronized(path, batch.num_rows)


def number_anew(path: Path, episode_ids: Array) -> FileEntry:
    """Replace the numbers of the episodes, int32 [R], in a shard of R rows; it may have been done in part before."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        view = np.frombuffer(content, np.uint8)
        batch = pa.ipc.open_file(pa.py_buffer(view)).get_batch(0)
        stored = batch.column("episode_ids").buffers()[1]
        offset = stored.address - view.ctypes.data
        del batch, stored, view
        content[offset : offset + episode_ids.nbytes] = episode_ids.tobytes()
        content.flush()
    return _synchronized(path, len(episode_ids))


def _synchronized(path: Path, rows: int) -> FileEntry:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(file=path.name, rows=rows, bytes=path.stat().st_size, sha256=digest)


def _as_stored(column: Column, values: Array) -> Array:
    if column.shape is None:
        return values
    flat = values.reshape(len(values), column.size)
    return np.packbits(flat, axis=1, bitorder="little") if column.packed else flat


def _to_arrow(column: Column, values: Array) -> pa.Array:
    if column.dtype == np.bool_ and not column.packed:
        return pa.array(values)
    element = pa.from_numpy_dtype(column.dtype)
    count = values.size * 8 if column.packed else values.size
    flat = pa.Array.from_buffers(element, count, [None, pa.py_buffer(values)])
    return flat if column.shape is None else pa.FixedSizeListArray.from_arrays(flat, type=column.arrow_type)
