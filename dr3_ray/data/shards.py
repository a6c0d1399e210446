"""Writing a data set: shard by shard into a sibling directory, which gets its name only when everything is on disk."""

import datetime
import hashlib
import math
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from dr3_ray.data.episodes import checked
from dr3_ray.data.schema import (
    EPISODE_SCHEMA,
    EPISODES,
    MANIFEST,
    PARTIAL,
    Column,
    Columns,
    Counts,
    FileEntry,
    Manifest,
    Provenance,
    Statistic,
    arrow_schema,
    columns_of,
    part_column,
)
from dr3_ray.data.spaces import Array, SpaceSpec
from dr3_ray.errors import UserError

SHARD_BYTES = 256 * 2**20  # the writer's memory: one shard


class ShardWriter:
    """Context manager that writes a data set to the directory `path`, one complete episode at a time.

    `gamma` is the discount of the Monte-Carlo returns in the columns. Nothing appears at `path` before the context
    ends without an exception. UserError: the target exists and is not empty, an episode is not acceptable (see
    `episodes.checked`), or nothing was written.
    """

    manifest: Manifest

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        observation_space: SpaceSpec,
        action_space: SpaceSpec,
        gamma: float,
        name: str,
        provenance: Provenance,
        environment: str | None = None,
        rows_per_shard: int | None = None,
    ) -> None:
        _check_spaces(observation_space, action_space)
        if not 0 <= gamma <= 1:
            raise UserError(f"gamma is {gamma}: choose a discount between 0 and 1")
        self._path = Path(os.path.abspath(path))
        check_target(self._path)
        self._about: dict[str, Any] = {
            "name": name,
            "gamma": gamma,
            "observation_space": observation_space,
            "action_space": action_space,
            "environment": environment,
            "provenance": provenance,
        }
        self._action_space = action_space
        self._layout = columns_of(observation_space, action_space)
        bytes_per_row = sum(column.row_bytes for column in self._layout.values())
        self._rows_per_shard = rows_per_shard or max(1, SHARD_BYTES // bytes_per_row)
        self._fill = self._rows = self._terminateds = self._truncateds = 0
        self._complete = True
        self._shards: list[FileEntry] = []
        self._episodes: list[tuple[int, int, int, float, bool]] = []
        self._moments = {name: _Moments() for name in ("rewards", "monte_carlo_returns", "episode_returns")}
        for part, space in observation_space.parts.items():
            if space.dtype == "float32":
                self._moments[part_column("observations", part)] = _Moments()

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
        self._partial.mkdir()
        # Reserved, not yet touched: memory is used as the rows come in.
        self._buffers = {
            name: np.empty((self._rows_per_shard, *column.row_shape), np.uint8 if column.packed else column.dtype)
            for name, column in self._layout.items()
        }
        return self

    def write(self, columns: Columns, keep: Array | None = None) -> None:
        """Append one complete episode, or only its rows where the boolean mask `keep` [T] is true.

        `columns` are those of `episode_columns`, actions as stored. Episode ids have to grow from call to call.
        """
        columns = checked(columns, self._layout, self._action_space)
        episode = int(columns["episode_ids"][0])
        if self._episodes and episode <= self._episodes[-1][0]:
            raise UserError(f"episode {episode} comes after episode {self._episodes[-1][0]}: number episodes upwards")
        steps, episode_return = len(columns["rewards"]), float(columns["rewards"].sum(dtype=np.float64))
        terminated = bool(columns["terminateds"][-1])
        if keep is not None:
            columns = {name: values[keep] for name, values in columns.items()}
        rows = len(columns["rewards"])
        self._complete &= rows == steps
        self._episodes.append((episode, self._rows, rows, episode_return, terminated))
        self._rows += rows
        self._terminateds += int(columns["terminateds"].sum())
        self._truncateds += int(columns["truncateds"].sum())
        for name, moments in self._moments.items():
            moments.add(np.asarray(episode_return) if name == "episode_returns" else columns[name])
        stored = {name: _as_stored(column, columns[name]) for name, column in self._layout.items()}
        start = 0
        while start < rows:
            count = min(rows - start, self._rows_per_shard - self._fill)
            for name, values in stored.items():
                self._buffers[name][self._fill : self._fill + count] = values[start : start + count]
            start += count
            self._fill += count
            if self._fill == self._rows_per_shard:
                self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _flush(self) -> None:
        arrays = [_to_arrow(column, self._buffers[name][: self._fill]) for name, column in self._layout.items()]
        batch = pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(self._layout))
        self._shards.append(_write_file(self._partial / f"shard-{len(self._shards):05d}.arrow", batch))
        self._fill = 0

    def _commit(self) -> None:
        if self._rows == 0:
            raise UserError("there are no rows to write: an empty data set is of no use, check the source")
        if self._fill:
            self._flush()
        table = [np.asarray(values) for values in zip(*self._episodes, strict=True)]
        episodes = pa.RecordBatch.from_arrays([pa.array(values) for values in table], schema=EPISODE_SCHEMA)
        self.manifest = Manifest(
            **self._about,
            complete_episodes=self._complete,
            counts=Counts(
                rows=self._rows,
                episodes=len(self._episodes),
                terminateds=self._terminateds,
                truncateds=self._truncateds,
            ),
            shards=tuple(self._shards),
            episodes=_write_file(self._partial / EPISODES, episodes),
            statistics={name: moments.result() for name, moments in self._moments.items()},
        )
        with open(self._partial / MANIFEST, "w", encoding="utf-8") as file:
            file.write(self.manifest.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(self._partial)
        check_target(self._path)
        self._partial.rename(self._path)
        _sync_directory(self._path.parent)


def write_dataset(path: str | os.PathLike[str], episodes: Iterable[Columns], **about: Any) -> Manifest:
    """Write complete episodes (`episode_columns`) to the directory `path`; `about` are the options of `ShardWriter`."""
    with ShardWriter(path, **about) as writer:
        for columns in episodes:
            writer.write(columns)
    return writer.manifest


def check_target(path: str | os.PathLike[str]) -> None:
    """UserError unless a data set can be written to `path`: nothing is there, or an empty directory."""
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists and is not an empty directory: choose another one, or remove it first")


def now() -> str:
    """This moment in UTC, as provenance records it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class _Moments:
    """Minimum, maximum, mean and variance of a stream, merged chunk by chunk (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._min, self._max = math.inf, -math.inf

    def add(self, values: Array) -> None:
        if values.size == 0:
            return
        count, mean = values.size, float(values.mean(dtype=np.float64))
        total, shift = self._count + count, mean - self._mean
        self._squares += float(values.var(dtype=np.float64)) * count + shift**2 * self._count * count / total
        self._mean += shift * count / total
        self._count = total
        self._min, self._max = min(self._min, float(values.min())), max(self._max, float(values.max()))

    def result(self) -> Statistic:
        return Statistic(min=self._min, max=self._max, mean=self._mean, std=math.sqrt(self._squares / self._count))


def _check_spaces(observation_space: SpaceSpec, action_space: SpaceSpec) -> None:
    """UserError unless observations are boxes, and actions discrete or a float box with finite bounds, low < high."""
    if observation_space.kind == "discrete":
        raise UserError("observations of a Discrete space have no columns: encode them one-hot in the source")
    if action_space.kind == "dict":
        raise UserError("actions of a Dict space have no columns: use a Box or a Discrete space in the source")
    if action_space.kind == "discrete":
        return
    low, high = action_space.bounds()
    if action_space.dtype != "float32" or not np.isfinite([low, high]).all() or not (low < high).all():
        raise UserError(
            "a Box action space needs float actions and finite bounds, low < high: correct it in the source"
        )


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


def _write_file(path: Path, batch: pa.RecordBatch) -> FileEntry:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(file=path.name, rows=batch.num_rows, bytes=path.stat().st_size, sha256=digest)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
