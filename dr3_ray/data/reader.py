"""Reading a data set: memory maps from disk to NumPy, rows gathered by `take`, and given to training as tensors.

Nothing is copied on opening; processes on one machine share the pages. Only a gather copies, and only its rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dr3_ray.data import identity
from dr3_ray.data.addresses import Address
from dr3_ray.data.cache import cached, refuse_others
from dr3_ray.data.columns import EPISODE_SCHEMA, Columns, columns_of, parts_on_disk
from dr3_ray.data.episodes import monte_carlo_returns
from dr3_ray.data.frames import Framed
from dr3_ray.data.mapped import decode, plain_values, routed, select
from dr3_ray.data.mapped_files import MappedFiles
from dr3_ray.data.number_types import Array
from dr3_ray.data.opening import opening_fault, read_manifest
from dr3_ray.data.paging import Extents, MappedFile
from dr3_ray.data.schema import MANIFEST, Statistic, damaged
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
        self._looked = 0.0  # when the sizes of files were last compared
        self.gamma = self.manifest.gamma if gamma is None else gamma
        self._layout = columns_of(self.observation_space, self.action_space)
        self._parts = parts_on_disk(self._layout)
        self._files = MappedFiles(self.path, self.manifest.shards, self._layout)
        self._shards, self._ends = self._files.shards, self._files.ends
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
        batch = self._files.batch(self.manifest.episodes, EPISODE_SCHEMA)
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
        self._files.check(self.manifest.files)
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

        gathered = self.take(indices.numpy(), columns)
        return {
            name: {part: torch.from_numpy(array) for part, array in values.items()}
            if isinstance(values, dict)
            else torch.from_numpy(values)
            for name, values in gathered.items()
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
        taken = self._take(rows, [stored for name in columns for stored in self._parts[name].values()])
        return {
            name: taken[name] if name in taken else {part: taken[column] for part, column in self._parts[name].items()}
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
        return [file for files in self._files.of_shards for file in files]

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
            users = sum(isinstance(other := shard[name], Framed) and other.frames is stored.frames for name in names)
            return stored.starts.nbytes + stored.frames.nbytes / users

        return {name: sum(size(name, shard) for shard in shards) / rows for name in names}

    def extents(self, starts: Array, stops: Array, stored: Sequence[str]) -> Iterator[Extents]:
        """Return the bytes in which these runs of rows lie, ascending; `stored` are names of columns on disk.

        Of columns that are not mapped there are none.
        """
        return self._files.extents(starts, stops, stored)

    def _lying(self, stored: Sequence[str]) -> list[str]:
        """Return those of these columns that lie on disk, by their names there."""
        return list(stored)

    def _take(self, rows: Array, stored: Sequence[str]) -> Columns:
        flat = rows.reshape(-1)
        if flat.size:
            lowest, highest = flat.min(), flat.max()
            if lowest < 0 or highest >= len(self):
                raise IndexError(f"row {int(lowest if lowest < 0 else highest)} of a data set of {len(self)} rows")
        array = self._select(flat, stored)
        return {name: decode(name, self._layout[name], values, rows.shape) for name, values in array.items()}

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
