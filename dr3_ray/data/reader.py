"""Reading a data set: memory maps from disk to NumPy, rows gathered by `take`, and given to training as tensors.

Nothing is copied on opening; processes on one machine share the pages. Only a gather copies, and only its rows.
"""

from __future__ import annotations

import os
import time
from bisect import bisect, bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dr3_ray.data import identity
from dr3_ray.data.addresses import Address
from dr3_ray.data.arrow import read_batch
from dr3_ray.data.cache import cached, refuse_others
from dr3_ray.data.columns import (
    EPISODE_SCHEMA,
    Column,
    Columns,
    arrow_schema,
    columns_of,
    part_column,
    parts_on_disk,
)
from dr3_ray.data.episodes import monte_carlo_returns
from dr3_ray.data.frames import FRAMES, Framed, Stack, shard_layout
from dr3_ray.data.mapped import as_array, decode, plain_values, select
from dr3_ray.data.number_types import Array
from dr3_ray.data.opening import opening_fault, read_manifest
from dr3_ray.data.paging import Extents, MappedFile, mapped_file
from dr3_ray.data.schema import MANIFEST, FileEntry, ShardEntry, Statistic, damaged
from dr3_ray.data.spaces import SpaceSpec, training_spaces
from dr3_ray.data.subsets import Subset
from dr3_ray.errors import UserError

if TYPE_CHECKING:  # torch is for those who gather rows
    from torch import Tensor

    from dr3_ray.data.mixing import Mixing
    from dr3_ray.data.n_step import Apart
    from dr3_ray.types import Spaces

CHECKED_EVERY = 1.0  # seconds between looks at the sizes of files from which rows are drawn


class Dataset:
    """A data set opened for reading.

    `gamma` other than the manifest's recomputes the Monte-Carlo returns (the one column that is then in memory),
    None keeps them. Opening checks the schema, counts, file sizes, where episodes start and end, discrete actions and
    the manifest's digest of the identity; `dr3_ray.data.verify` checks all contents. `uri` is where another machine
    finds the same data. `accept` takes a manifest that was edited by hand.

    Raises:
        UserError: the directory is not a data set, is damaged, of another format, or a subsample whose returns cannot
            be recomputed.
    """

    subset: Subset | None = None  # which rows of another one these are
    apart: Apart | None = None  # where several steps go on, if that is not here
    mixing: Mixing | None = None  # how batches are drawn from several data sets in one
    task: Array | None = None  # what observations of the environment lack: zeros, and the one-hot of the task to act in
    tasks = 0  # the length of that one-hot

    def __init__(
        self, path: str | os.PathLike[str], gamma: float | None = None, uri: str | None = None, accept: bool = False
    ) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self._uri = uri
        self._inodes: dict[Path, tuple[int, int]] = {}
        self._looked = 0.0  # when the sizes of files were last compared
        self._mapped: list[list[MappedFile]] = []  # of each shard
        self.gamma = self.manifest.gamma if gamma is None else gamma
        self._layout = columns_of(self.observation_space, self.action_space)
        self._parts = parts_on_disk(self._layout)
        self._shards = [self._open_shard(entry) for entry in self.manifest.shards]
        rows = [entry.rows for entry in self.manifest.shards]
        self._ends = np.cumsum(rows)
        if fault := opening_fault(self.manifest, self.episodes, self._shards, self._select):
            raise damaged(self.path, fault)
        digests = self.manifest.digests
        if digests is not None and digests.identity != self.manifest.fingerprint and not accept:
            raise UserError(
                f"{self.path} is damaged: its {MANIFEST} says other things about the data than when it was written; "
                f"undo that, copy or import it again, or accept it by `dr3-ray data verify {self.path} --seal`"
            )
        if self.gamma != self.manifest.gamma:
            self._recompute_returns()

    def __len__(self) -> int:
        """Return the number of rows (transitions)."""
        return self.manifest.counts.rows

    def __reduce__(self) -> tuple[object, ...]:
        """Return the data set as its path: another process maps the same files, and checks that they are the same."""
        return _reopened, (str(self.path.resolve()), self._uri, self.gamma, self.manifest.fingerprint)

    @property
    def observation_space(self) -> SpaceSpec:
        return self.manifest.observation_space

    @property
    def action_space(self) -> SpaceSpec:
        return self.manifest.action_space

    @property
    def spaces(self) -> Spaces:
        """The spaces as networks are built for them.

        Raises:
            UserError: nothing can be learned in them.
        """
        return training_spaces(self.observation_space, self.action_space)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that `take` and `gather` know."""
        return tuple(self._parts)

    @property
    def stored_columns(self) -> tuple[str, ...]:
        """Names that `stored` gives."""
        return tuple(self._layout)

    @property
    def fingerprint(self) -> str:
        """The identity of the data: of all that changes what is learned from them, a discount that was asked for too.

        That of the manifest, where it is the manifest's.
        """
        own = self.manifest.fingerprint
        return own if self.gamma == self.manifest.gamma else identity.of_discount(own, self.gamma)

    def statistics(self) -> dict[str, Statistic]:
        """Return statistics of rewards, returns and observations, by their names on disk."""
        return self.manifest.statistics

    @cached_property
    def episodes(self) -> Columns:
        """One row per episode, for the whole data set.

        `episode_ids`; `offsets` and `lengths` of the stored rows; undiscounted `returns` of the complete episode;
        `terminated`.
        """
        batch = self._read_batch(self.manifest.episodes, EPISODE_SCHEMA)
        return {name: plain_values(batch.column(name)) for name in EPISODE_SCHEMA.names}

    def check(self, columns: Sequence[str]) -> None:
        """Check that the data set has all these columns.

        Raises:
            UserError: one is missing.
        """
        if unknown := [name for name in columns if name not in self._parts]:
            raise UserError(f"unknown column {unknown[0]!r}: the data set has {', '.join(self.columns)}")

    def check_one(self, what: str) -> None:
        """Check that this is one data set, for what a mixture does not do.

        Raises:
            UserError: it is a mixture.
        """
        if self.mixing:
            raise UserError(f"{self.manifest.name} is a mixture, which is for training: {what} its parts, one by one")

    def check_files(self) -> None:
        """Check that no mapped file was cut short: reading the missing part would kill the process (SIGBUS).

        `take` looks once a second. A file that was removed or replaced as a whole stays readable.

        Raises:
            UserError: a file was cut short.
        """
        for entry in self.manifest.files:
            path = self.path / entry.file
            try:
                found = path.stat()
            except OSError:
                continue
            if (found.st_dev, found.st_ino) == self._inodes.get(path) and found.st_size < entry.bytes:
                raise damaged(self.path, f"{entry.file} was cut to {found.st_size} bytes while it was read")
        self._looked = time.monotonic()

    def stored(self, start: int, stop: int) -> Columns:
        """Copy the rows from `start` up to `stop` as they lie on disk, by the names that columns have there.

        Each is [R, elements] or [R]; bit rows are packed, flags are bool.
        """
        rows = self._select(np.arange(start, min(stop, len(self))), tuple(self._layout))
        flags = {name for name, column in self._layout.items() if column.dtype == np.bool_ and not column.packed}
        return {name: values.astype(bool) if name in flags else values for name, values in rows.items()}

    def gather(self, indices: Tensor, columns: Sequence[str]) -> dict[str, Any]:
        """Copy rows as `take` does, as tensors on the CPU."""
        import torch

        found = self.take(indices.numpy(), columns)
        return {
            name: {part: torch.from_numpy(each) for part, each in values.items()}
            if isinstance(values, dict)
            else torch.from_numpy(values)
            for name, values in found.items()
        }

    def take(self, rows: Array, columns: Sequence[str]) -> dict[str, Any]:
        """Copy the rows of these indices (int64, [*lead], 0 ≤ index < len) into {column: [*lead, *shape]}.

        Observations of a Dict space are {part: [*lead, *shape]}. float32 for floats, booleans and the two termination
        flags; bool for `next_actions_valid`; uint8 and int64 stay.

        Raises:
            IndexError: an index is out of bounds.
            UserError: a column is unknown.
        """
        self.check(columns)
        if time.monotonic() - self._looked > CHECKED_EVERY:
            self.check_files()
        if "" in self._parts["observations"]:
            return self._take(rows, columns)
        found = self._take(rows, [stored for name in columns for stored in self._parts[name].values()])
        return {
            name: found[name] if name in found else {part: found[each] for part, each in self._parts[name].items()}
            for name in columns
        }

    @property
    def row_bytes(self) -> int:
        """What a row of these spaces takes with all its columns, however it is stored."""
        return sum(column.row_bytes for column in columns_of(self.observation_space, self.action_space).values())

    @property
    def wholes(self) -> tuple[Dataset, ...]:
        """The data sets on disk in which the rows lie."""
        return (self,)

    def on_disk(self, rows: Array) -> list[tuple[Dataset, Array]]:
        """Return in which data sets on disk some rows [R] lie, and where there."""
        return [(self, rows)]

    @property
    def mapped_files(self) -> list[MappedFile]:
        """The files of all shards."""
        return [file for files in self._mapped for file in files]

    def stored_bytes(self, columns: Sequence[str]) -> dict[str, float]:
        """Return what columns take on disk, in bytes a row, each part by its name there.

        Frames that two of them have in common count half for each.
        """
        names = self._lying([name for column in columns for name in self._parts[column].values()])
        shards = [shard for whole in self.wholes for shard in whole._shards]
        rows = sum(int(whole._ends[-1]) for whole in self.wholes)

        def size(name: str, shard: Mapping[str, Array | Framed]) -> float:
            stored = shard[name]
            if not isinstance(stored, Framed):
                return stored.nbytes
            users = sum(isinstance(other := shard[each], Framed) and other.frames is stored.frames for each in names)
            return stored.starts.nbytes + stored.frames.nbytes / users

        return {name: sum(size(name, shard) for shard in shards) / rows for name in names}

    def extents(self, starts: Array, stops: Array, stored: Sequence[str]) -> Iterator[Extents]:
        """Yield the bytes in which these runs of rows lie, ascending; `stored` are names of columns on disk.

        Of columns that are not mapped there are none.
        """
        firsts = [0, *self._ends.tolist()]
        for number in range(bisect(firsts, starts[0]) - 1, bisect_left(firsts, stops[-1])):
            first, after = np.searchsorted(stops, firsts[number], "right"), np.searchsorted(starts, firsts[number + 1])
            low, high = (each[first:after] - firsts[number] for each in (starts, stops))
            low, high = np.maximum(low, 0), np.minimum(high, firsts[number + 1] - firsts[number])
            for name in stored if len(low) else ():
                column = self._shards[number][name]
                if not isinstance(column, Framed):
                    bits = self._layout[name].is_bit
                    yield from self._bytes(number, column, low // 8 if bits else low, -(-high // 8) if bits else high)
                else:
                    yield from self._bytes(number, column.starts, low, high)
                    yield from self._bytes(number, column.frames, *column.frames_of(low, high))

    def _lying(self, stored: Sequence[str]) -> list[str]:
        """Return those of these columns that lie on disk, by their names there."""
        return list(stored)

    def _bytes(self, number: int, values: Array, low: Array, high: Array) -> Iterator[Extents]:
        """Yield where elements of a column of a shard lie, if it is mapped."""
        size = values[:1].nbytes
        for file in self._mapped[number]:
            if 0 <= (at := values.ctypes.data - file.address) < file.size:
                yield Extents(file, at + size * low, at + size * high)

    def _take(self, rows: Array, stored: Sequence[str]) -> Columns:
        flat = rows.reshape(-1)
        if flat.size:
            lowest, highest = flat.min(), flat.max()
            if lowest < 0 or highest >= len(self):
                raise IndexError(f"row {int(lowest if lowest < 0 else highest)} of a data set of {len(self)} rows")
        found = self._select(flat, stored)
        return {name: decode(name, self._layout[name], values, rows.shape) for name, values in found.items()}

    def _select(self, rows: Array, stored: Sequence[str]) -> Columns:
        """Copy the rows [R] as they lie on disk, flags as 0 or 1; `stored` are names of columns there."""
        if len(self._shards) == 1:
            return {name: select(self._layout[name], self._shards[0][name], rows) for name in stored}
        return routed(
            rows,
            self._ends,
            lambda number, part: {
                name: select(self._layout[name], self._shards[number][name], part) for name in stored
            },
        )

    def _read_batch(self, entry: FileEntry, schema: pa.Schema) -> pa.RecordBatch:
        path = self.path / entry.file
        try:
            found = path.stat()
        except OSError:
            raise damaged(self.path, f"{entry.file} is missing") from None
        if found.st_size != entry.bytes:
            raise damaged(self.path, f"{entry.file} has {found.st_size} bytes instead of {entry.bytes}")
        self._inodes[path] = found.st_dev, found.st_ino
        try:
            batch = read_batch(path, schema)
        except UserError:
            raise
        except ValueError as error:
            raise damaged(self.path, f"{entry.file} {error}") from None
        if batch.num_rows != entry.rows:
            raise damaged(self.path, f"{entry.file} has {batch.num_rows} rows, the manifest says {entry.rows}")
        return batch

    def _open_shard(self, entry: ShardEntry) -> dict[str, Array | Framed]:
        self._mapped.append([])
        once = {frames.part: frames for frames in entry.frames or ()}
        columns = self._open_file(entry, shard_layout(self._layout, once))
        stored: dict[str, Array | Framed] = {**columns}
        for part, frames in once.items():
            stack = Stack(frames.stack, frames.axis)
            column = self._layout.get(part_column("observations", part))
            if column is None or not stack.fits(column):
                raise damaged(self.path, f"{MANIFEST} has frames in {frames.file} that are not of its observations")
            found = self._open_file(frames, {"frames": stack.frame(column)})["frames"]
            for name, indices in FRAMES.items():
                framed = Framed(column, stack, found, columns[part_column(indices, part)])
                if framed.out_of_bounds():
                    raise damaged(self.path, f"{entry.file} has rows whose frames are not in {frames.file}")
                stored[part_column(name, part)] = framed
        return stored

    def _open_file(self, entry: FileEntry, layout: Mapping[str, Column]) -> Columns:
        batch = self._read_batch(entry, arrow_schema(layout))
        self._mapped[-1].append(mapped_file(self.path / entry.file, batch))
        try:
            return {name: as_array(batch.column(name), column, entry.rows) for name, column in layout.items()}
        except ValueError:
            raise damaged(self.path, f"{entry.file} holds fewer values than rows") from None

    def _recompute_returns(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise UserError(f"gamma is {self.gamma}: choose a discount between 0 and 1")
        if not self.manifest.complete_episodes:
            raise UserError(
                f"{self.path} is a subsample of its episodes, so its returns hold for gamma {self.manifest.gamma} "
                f"only, not for {self.gamma}: use gamma {self.manifest.gamma}, or a complete data set"
            )
        rewards = self._select(np.arange(len(self)), ["rewards"])["rewards"]
        episodes = np.split(rewards, self.episodes["offsets"][1:])
        returns = np.concatenate([monte_carlo_returns(episode, self.gamma) for episode in episodes])
        parts = np.split(returns, self._ends[:-1])
        for shard, part in zip(self._shards, parts, strict=True):
            shard["monte_carlo_returns"] = part


def routed(rows: Array, ends: Array, piece: Callable[[int, Array], Columns]) -> Columns:
    """Copy the rows [R] of what consists of pieces, one after the other, that end at `ends`.

    `piece` copies rows of the piece of a number, counted from its first.
    """
    piece_of = np.searchsorted(ends, rows, "right")
    order = piece_of.argsort()
    back = order.argsort()
    counts = np.bincount(piece_of, minlength=len(ends))
    parts = zip(np.split(rows[order], counts.cumsum()[:-1]), [0, *ends.tolist()], strict=False)
    found = [piece(number, part - start) for number, (part, start) in enumerate(parts) if len(part)] or [piece(0, rows)]
    return {name: np.concatenate([each[name] for each in found]).take(back, 0) for name in found[0]}


def _reopened(path: str, uri: str | None, gamma: float, fingerprint: str) -> Dataset:
    """Open the data set that was pickled elsewhere.

    Raises:
        UserError: other data lie there by now.
    """
    if uri is not None and not Path(path, MANIFEST).exists():  # another machine, or its cache was pruned
        return Dataset(cached(uri), gamma, uri)
    data = Dataset(path, gamma, uri)
    refuse_others(data.manifest, Address(path, None, fingerprint))
    return data
