"""The files of a data set: shards as rows come in, and the table of episodes."""

import hashlib
import mmap
import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from dr3_ray.data.columns import Column, Columns, arrow_schema, columns_of, part_column
from dr3_ray.data.content import EpisodeDigest
from dr3_ray.data.episodes import checked
from dr3_ray.data.frames import FRAMES, SMALLEST, FrameBuffer, Stack, shard_layout
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import SHARDS, FileEntry, FramesEntry, ShardEntry
from dr3_ray.data.spaces import SpaceSpec
from dr3_ray.data.tally import Tally
from dr3_ray.errors import UserError

SHARD_BYTES = 256 * 2**20  # the memory of who writes: one shard
AT_ONCE = 2**24  # bytes of observations that are compared together


def rows_of(
    shard_bytes: int,
    observation_space: SpaceSpec,
    action_space: SpaceSpec,
    stack: Stack | None = None,
    once: bool = True,
) -> int:
    """Return how many rows a shard of so many bytes has."""
    return max(1, shard_bytes // row_bytes(observation_space, action_space, stack, once))


def row_bytes(
    observation_space: SpaceSpec, action_space: SpaceSpec, stack: Stack | None = None, once: bool = True
) -> int:
    """Return the bytes of a row on disk, of a long episode whose observations are stacked so.

    Without `once`, every observation has two columns.
    """
    layout = columns_of(observation_space, action_space)
    parts = once_in(layout) if once else {}
    frames = [(stack if stack and stack.fits(column) else Stack()).frame(column).row_bytes for column in parts.values()]
    return sum(frames) + sum(column.row_bytes for column in shard_layout(layout, parts).values())


def once_in(layout: dict[str, Column]) -> dict[str, Column]:
    """Return the parts of the observations that may be stored once: all but those that are tiny."""
    parts = {name.partition("/")[2]: column for name, column in layout.items() if name.partition("/")[0] in FRAMES}
    return {part: column for part, column in parts.items() if column.row_bytes >= SMALLEST}


class ShardFiles:
    """Consecutive episodes on their way into files of a folder, and a tally of them.

    The files are called `name` with a number, from 0. Memory holds one shard. In each shard, a part of the observations
    is stored once where that takes at least a quarter less than two columns.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        observation_space: SpaceSpec,
        action_space: SpaceSpec,
        gamma: float,
        rows_per_shard: int,
        stack: Stack | None = None,
        once: bool = True,
    ) -> None:
        """With `stack`, it is known how observations are stacked. Without `once`, they have two columns."""
        self.entries: list[ShardEntry] = []
        self.tally = Tally(observation_space, action_space)
        self._folder, self._name, self._rows_per_shard = folder, name, rows_per_shard
        self._spaces, self._gamma = (observation_space, action_space), gamma
        self._layout = columns_of(observation_space, action_space)
        self._rounded = [
            name
            for name, column in self._layout.items()
            if column.dtype == np.float32 and name.startswith(("observations", "next_observations", "rewards"))
        ]
        self._fill = 0
        parts = once_in(self._layout) if once else {}
        size = sum(column.row_bytes for column in parts.values())
        self._at_once = max(1, AT_ONCE // max(1, size))
        self._frames = {
            part: FrameBuffer(
                column,
                rows_per_shard,
                SHARD_BYTES * column.row_bytes // size,
                stack if stack and stack.fits(column) else None,
            )
            for part, column in parts.items()
        }
        # Reserved, not yet touched: memory is used as the rows come in.
        apart = {part_column(name, part) for part in parts for name in FRAMES}
        self._buffers = {
            name: np.empty((rows_per_shard, *column.row_shape), np.uint8 if column.packed else column.dtype)
            for name, column in self._layout.items()
            if name not in apart
        }

    def write(self, columns: Columns, keep: Array | None = None) -> None:
        """Append one complete episode, or only its rows where the boolean mask `keep` [T] is true.

        `columns` are those of `episode_columns`, actions as stored. Episode ids have to grow from call to call.

        Raises:
            UserError: they are not acceptable (see `episodes.checked`), or there are too many shards.
        """
        given, columns = columns, checked(columns, self._layout, *self._spaces, self._gamma)
        for name in self._rounded:
            if not np.can_cast((source := np.asarray(given[name])).dtype, np.float32):
                self.tally.rounding.add(name.removeprefix("next_"), source, columns[name])
        episode, last = int(columns["episode_ids"][0]), self.tally.last_episode
        if episode <= last:
            raise UserError(f"episode {episode} comes after episode {last}: number episodes upwards")
        columns = self.tally.add(columns, keep)
        rows = len(columns["rewards"])
        stored = {name: _as_stored(column, columns[name]) for name, column in self._layout.items()}
        digest = EpisodeDigest(self._layout)
        if rows:
            digest.add(stored)
        self.tally.digest(digest.digest())
        start = 0
        while start < rows:
            count = min(rows - start, self._rows_per_shard - self._fill)
            count = self._fitting(stored, start, count)
            for buffer in self._frames.values():
                buffer.add(count)
            for name, values in self._buffers.items():
                values[self._fill : self._fill + count] = stored[name][start : start + count]
            start += count
            self._fill += count
            if self._fill == self._rows_per_shard or not count:
                self.flush()

    def _fitting(self, stored: Columns, start: int, count: int) -> int:
        """Return how many of these rows fit into the shard with their frames."""
        count = min(count, self._at_once)
        for part, buffer in self._frames.items():
            if not count:
                break
            now, following = (stored[part_column(name, part)][start : start + count] for name in FRAMES)
            count = min(count, buffer.fitting(now, following))
        return count

    def flush(self) -> None:
        """Write the rows that are still in memory."""
        if not self._fill:
            return
        if len(self.entries) == SHARDS:
            raise UserError(f"these are more than {SHARDS:,} shards: raise rows_per_shard")
        path = self._folder / f"{self._name}{len(self.entries):05d}.arrow"
        once = {part: buffer for part, buffer in self._frames.items() if buffer.saves}
        rows = {name: values[: self._fill] for name, values in self._buffers.items()}
        for part, buffer in self._frames.items():
            names = FRAMES.values() if part in once else FRAMES
            columns = buffer.starts() if part in once else buffer.columns()
            rows |= {part_column(name, part): column for name, column in zip(names, columns, strict=True)}
        layout = shard_layout(self._layout, once)
        entry = write_batch(path, _to_batch(layout, rows))
        frames = []
        for number, (part, buffer) in enumerate(once.items()):
            batch = _to_batch({"frames": buffer.frame}, {"frames": buffer.frames})
            file = write_batch(frames_path(path, number), batch)
            frames.append(FramesEntry(**vars(file), part=part, stack=buffer.stack.frames, axis=buffer.stack.axis))
        self.entries.append(ShardEntry(**vars(entry), frames=tuple(frames) or None))
        self._fill = 0
        for buffer in self._frames.values():
            buffer.clear()


def frames_path(shard: Path, number: int) -> Path:
    """Return where the frames of a shard lie, the file of this number."""
    return shard.with_name(f"{shard.stem}-frames-{number}.arrow")


def _to_batch(layout: dict[str, Column], columns: Columns) -> pa.RecordBatch:
    arrays = [_to_arrow(column, columns[name]) for name, column in layout.items()]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(layout))


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
