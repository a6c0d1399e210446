"""Reading a data set: memory maps from disk to torch, rows gathered by `index_select`.

Nothing is copied on opening; processes on one machine share the pages. Only a gather copies, and only its rows.
"""

import hashlib
import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dr3_ray.data.cache import cached
from dr3_ray.data.episodes import monte_carlo_returns
from dr3_ray.data.schema import (
    EPISODE_SCHEMA,
    MANIFEST,
    PARTIAL,
    Column,
    Columns,
    FileEntry,
    Manifest,
    arrow_schema,
    columns_of,
    damaged,
)
from dr3_ray.data.spaces import SpaceSpec, training_spaces
from dr3_ray.errors import UserError, first_line
from dr3_ray.stores import is_uri
from dr3_ray.types import Spaces

# Row b holds the bits of byte b, lowest first, as Arrow packs them.
_BITS = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")).float()


class Dataset:
    """A data set opened for reading.

    `gamma` other than the manifest's recomputes the Monte-Carlo returns (the one column that is then in memory),
    None keeps them. Opening checks the schema, all counts and file sizes; `verify` checks the contents. UserError:
    the directory is not a data set, is damaged, of another format, or a subsample whose returns cannot be recomputed.
    """

    def __init__(self, path: str | os.PathLike[str], gamma: float | None = None) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        self.gamma = self.manifest.gamma if gamma is None else gamma
        self._layout = columns_of(self.observation_space, self.action_space)
        self._parts: dict[str, dict[str, str]] = {}  # the names on disk of a column's parts; most have one part, ""
        for name in self._layout:
            column, _, part = name.partition("/")
            self._parts.setdefault(column, {})[part] = name
        self._shards = [self._open_shard(entry) for entry in self.manifest.shards]
        rows = [entry.rows for entry in self.manifest.shards]
        self._ends = torch.tensor(rows).cumsum(0)
        self._check_counts(sum(rows))
        if self.gamma != self.manifest.gamma:
            self._recompute_returns()

    def __len__(self) -> int:
        """Number of rows (transitions)."""
        return self.manifest.counts.rows

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled as where it is: another process maps the same files."""
        return Dataset, (self.path.resolve(), self.gamma)

    @property
    def observation_space(self) -> SpaceSpec:
        return self.manifest.observation_space

    @property
    def action_space(self) -> SpaceSpec:
        return self.manifest.action_space

    @property
    def spaces(self) -> Spaces:
        """The spaces as networks are built for them; UserError where nothing can be learned in them."""
        return training_spaces(self.observation_space, self.action_space)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that `gather` knows."""
        return tuple(self._parts)

    @property
    def fingerprint(self) -> str:
        """The identity of the contents."""
        return self.manifest.fingerprint

    @cached_property
    def episodes(self) -> Columns:
        """One row per episode, for the whole data set.

        `episode_ids`; `offsets` and `lengths` of the stored rows; undiscounted `returns` of the complete episode;
        `terminated`.
        """
        batch = _read_batch(self.path / self.manifest.episodes.file, self.manifest.episodes, EPISODE_SCHEMA)
        return {name: batch.column(name).to_numpy(zero_copy_only=False) for name in EPISODE_SCHEMA.names}

    def check(self, columns: Sequence[str]) -> None:
        """UserError unless the data set has all these columns."""
        if unknown := [name for name in columns if name not in self._parts]:
            raise UserError(f"unknown column {unknown[0]!r}: the data set has {', '.join(self.columns)}")

    def gather(self, indices: Tensor, columns: Sequence[str]) -> dict[str, Any]:
        """Copies of the rows `indices` (int64, [*lead], 0 ≤ index < len) as {column: [*lead, *shape]}.

        Observations of a Dict space are {part: [*lead, *shape]}. float32 for floats, booleans and the two termination
        flags; bool for `next_actions_valid`; uint8 and int64 stay. IndexError if an index is out of bounds, UserError
        if a column is unknown.
        """
        self.check(columns)
        if self.observation_space.kind != "dict":
            return self._gather(indices, columns)
        found = self._gather(indices, [stored for name in columns for stored in self._parts[name].values()])
        return {
            name: found[name] if name in found else {part: found[each] for part, each in self._parts[name].items()}
            for name in columns
        }

    def _gather(self, indices: Tensor, stored: Sequence[str]) -> dict[str, Tensor]:
        flat = indices.reshape(-1)
        if flat.numel():
            lowest, highest = torch.aminmax(flat)
            if lowest < 0 or highest >= len(self):
                raise IndexError(f"row {int(lowest if lowest < 0 else highest)} of a data set of {len(self)} rows")
        if len(self._shards) == 1:
            rows = {name: _select(self._layout[name], self._shards[0][name], flat) for name in stored}
        else:
            rows = self._select_across_shards(flat, stored)
        return {name: _decode(name, self._layout[name], values, indices.shape) for name, values in rows.items()}

    def _select_across_shards(self, flat: Tensor, stored: Sequence[str]) -> dict[str, Tensor]:
        shard_of = torch.bucketize(flat, self._ends, right=True)
        order = shard_of.argsort()
        back = order.argsort()
        counts = torch.bincount(shard_of, minlength=len(self._shards)).tolist()
        parts = [
            (shard, part - (end - entry.rows))
            for shard, part, end, entry in zip(
                self._shards, torch.split(flat[order], counts), self._ends.tolist(), self.manifest.shards, strict=True
            )
            if len(part)
        ] or [(self._shards[0], flat)]
        found = {name: [_select(self._layout[name], shard[name], part) for shard, part in parts] for name in stored}
        # not [back], which takes three times as long for images
        return {name: torch.cat(rows).index_select(0, back) for name, rows in found.items()}

    def _open_shard(self, entry: FileEntry) -> dict[str, Tensor]:
        batch = _read_batch(self.path / entry.file, entry, arrow_schema(self._layout))
        return {
            name: _as_tensor(batch.column(name), column, entry.rows, self.path / entry.file)
            for name, column in self._layout.items()
        }

    def _check_counts(self, rows: int) -> None:
        counts, episodes = self.manifest.counts, self.episodes
        lengths = episodes["lengths"]
        found = {
            "rows": rows,
            "episodes": len(lengths),
            "terminateds": self._count_true("terminateds"),
            "truncateds": self._count_true("truncateds"),
        }
        for name, number in found.items():
            if number != getattr(counts, name):
                raise damaged(self.path, f"the manifest counts {getattr(counts, name)} {name}, the files {number}")
        offsets = np.cumsum(lengths) - lengths
        if (lengths < 0).any() or lengths.sum() != rows or (episodes["offsets"] != offsets).any():
            raise damaged(self.path, "the episodes do not add up to the rows")

    def _count_true(self, name: str) -> int:
        return sum(int(np.bitwise_count(shard[name].numpy()).sum()) for shard in self._shards)

    def _recompute_returns(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise UserError(f"gamma is {self.gamma}: choose a discount between 0 and 1")
        if not self.manifest.complete_episodes:
            raise UserError(
                f"{self.path} is a subsample of its episodes, so its returns hold for gamma {self.manifest.gamma} "
                f"only, not for {self.gamma}: use gamma {self.manifest.gamma}, or a complete data set"
            )
        rewards = torch.cat([shard["rewards"] for shard in self._shards]).numpy()
        episodes = np.split(rewards, self.episodes["offsets"][1:])
        returns = torch.from_numpy(np.concatenate([monte_carlo_returns(episode, self.gamma) for episode in episodes]))
        parts = torch.split(returns, [entry.rows for entry in self.manifest.shards])
        for shard, part in zip(self._shards, parts, strict=True):
            shard["monte_carlo_returns"] = part


def read_manifest(path: Path) -> Manifest:
    """The manifest of the data set in directory `path`; UserError if there is none that this version can read."""
    if path.name.endswith(PARTIAL):
        raise UserError(f"{path} is what an interrupted write left behind: remove it, and write the data set again")
    try:
        content = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path} is not a data set (it has no {MANIFEST}): name a directory made by `dr3-ray data import`, "
            "or embedded:NAME"
        ) from None
    except OSError as error:
        raise damaged(path, f"{MANIFEST} cannot be read ({error})") from None
    return Manifest.parse(content, path)


def verify(dataset: Dataset) -> None:
    """Read every file of an opened data set and compare its SHA-256 with the manifest's; UserError names the file."""
    for entry in dataset.manifest.files:
        with open(dataset.path / entry.file, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                raise damaged(dataset.path, f"the contents of {entry.file} have changed since they were written")


def load_dataset(source: str | os.PathLike[str], gamma: float | None = None) -> Dataset:
    """Open `embedded:NAME`, the directory of a data set, or its URI; `gamma` and errors as in `Dataset`.

    What is at a URI is copied to this machine once (`dr3_ray.data.cache`); UserError if it cannot be.
    """
    source = os.fspath(source)
    if source.startswith("minari:"):
        raise UserError(f"{source} has to be imported first: dr3-ray data import {source} --out DIR")
    if source.startswith("embedded:"):
        from dr3_ray.data.embedded import embedded_path

        return Dataset(embedded_path(source.removeprefix("embedded:")), gamma)
    if is_uri(source):
        try:
            source = cached(source)
        except OSError as error:
            raise UserError(f"{source} cannot be read: {first_line(error)}") from error
    return Dataset(source, gamma)


def _read_batch(path: Path, entry: FileEntry, schema: pa.Schema) -> pa.RecordBatch:
    try:
        size = path.stat().st_size
    except OSError:
        raise damaged(path.parent, f"{path.name} is missing") from None
    if size != entry.bytes:
        raise damaged(path.parent, f"{path.name} has {size} bytes instead of {entry.bytes}")
    try:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        if file.num_record_batches != 1 or not file.schema.equals(schema):
            raise damaged(path.parent, f"{path.name} does not have the columns that the manifest's spaces ask for")
        batch = file.get_batch(0)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path.parent, f"{path.name} is not a readable Arrow file ({first_line(error)})") from None
    if batch.num_rows != entry.rows:
        raise damaged(path.parent, f"{path.name} has {batch.num_rows} rows, the manifest says {entry.rows}")
    return batch


def _as_tensor(array: pa.Array, column: Column, rows: int, path: Path) -> Tensor:
    """The column's buffer as a tensor [rows, elements], bit rows as bytes, flags as [bytes]; not a copy."""
    bits = column.dtype == np.bool_
    shape = ((rows + 7) // 8,) if bits and not column.packed else (rows, *column.row_shape)
    dtype = np.dtype(np.uint8) if bits else column.dtype
    try:
        values = np.frombuffer(array.buffers()[-1], dtype, count=int(np.prod(shape))).reshape(shape)
    except ValueError:
        raise damaged(path.parent, f"{path.name} holds fewer values than rows") from None
    with warnings.catch_warnings():  # torch has no read-only tensors and says so; these never leave this file
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)


def _select(column: Column, stored: Tensor, rows: Tensor) -> Tensor:
    if column.dtype != np.bool_ or column.packed:
        return stored.index_select(0, rows)
    return stored.index_select(0, rows >> 3) >> (rows & 7) & 1


def _decode(name: str, column: Column, values: Tensor, lead: torch.Size) -> Tensor:
    if column.packed:
        bits = _BITS.index_select(0, values.reshape(-1).int()).reshape(len(values), 8 * values.shape[1])
        values = bits[:, : column.size]
    elif column.dtype.kind == "i":
        values = values.long()
    elif column.dtype == np.bool_:
        values = values.bool() if name == "next_actions_valid" else values.float()
    return values.reshape(*lead, *(column.shape or ()))
