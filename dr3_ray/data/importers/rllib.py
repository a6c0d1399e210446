"""Recordings of RLlib's new API stack: Parquet files of columns, or of packed episodes.

Layout: folders of .parquet files as `AlgorithmConfig.offline_data(output=...)` makes them. With
`output_write_episodes=False` a row is a step: `eps_id`, `obs`, `actions`, `rewards`, `new_obs`, `terminateds`,
`truncateds`; RLlib packs observations by default. Otherwise it is `item`, the state of a `SingleAgentEpisode` in
msgpack with msgpack-numpy's arrays. An episode whose pieces lie apart comes in several. Neither needs Ray to be read,
and no code of a recording is run.
"""

import base64
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dr3_ray.data.checks import Findings
from dr3_ray.data.importers.files import arrow_data, existing
from dr3_ray.data.importers.rows import Batch
from dr3_ray.data.importers.source import Options, Source
from dr3_ray.data.importers.table_source import table_source
from dr3_ray.data.importers.tables import BATCH_BYTES, BatchTable, from_arrow
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import Provenance
from dr3_ray.errors import UserError, first_line

COLUMNS = {
    "observations": "obs",
    "actions": "actions",
    "rewards": "rewards",
    "terminateds": "terminateds",
    "truncateds": "truncateds",
    "next_observations": "new_obs",
    "episode_ids": "eps_id",
}
PACKED = ("obs", "new_obs", "actions")  # what RLlib can be told to compress
CONSTRUCTORS = ("_frombuffer", "_reconstruct", "dtype", "ndarray", "scalar")
SHAPE = b"ARROW:extension:metadata"  # where Ray Data writes the shape of a column of tensors


def is_rllib(path: Path) -> bool:
    """Return whether a folder has recordings."""
    first = next(iter(sorted(path.rglob("*.parquet"))), None) if path.is_dir() else None
    if first is None:
        return False
    names = arrow_data(first, "parquet").schema.names
    return names == ["item"] or set(names) >= set(COLUMNS.values())


def rllib_source(path: str, options: Options) -> Source:
    """Return the episodes of recordings, file by file.

    Raises:
        UserError: they are of several agents, or not readable.
    """
    folder = existing(path)
    files = sorted(folder.rglob("*.parquet")) if folder.is_dir() else [folder]

    def read(findings: Findings) -> Iterator[Batch]:
        """Yield the rows of one file after the other, with a number for each piece of an episode."""
        number, last = 0, None
        for file in files:
            for batch in _steps(file):
                # rows of one episode that lie apart, as several environments record them, are pieces of their own
                ids = batch["episode_ids"]
                pieces = number + np.cumsum(np.append(ids[0] != last, ids[1:] != ids[:-1]))
                number, last = int(pieces[-1]), ids[-1]
                yield batch | {"episode_ids": pieces}

    theirs = {ours: [theirs] for ours, theirs in COLUMNS.items()}
    table = BatchTable(read, theirs)
    return table_source(table, options, name=folder.stem, provenance=Provenance(source=f"rllib:{path}"))


def _steps(file: Path) -> Iterator[Batch]:
    data = arrow_data(file, "parquet")
    packed = data.schema.names == ["item"]
    if not packed and (missing := set(COLUMNS.values()) - set(data.schema.names)):
        raise UserError(f"{file} has no column {sorted(missing)[0]}: it is no recording of RLlib's new API stack")
    for batch in data.to_batches(batch_size=1 if packed else max(1, BATCH_BYTES // 2**14)):
        if batch.num_rows:
            yield _episode(batch.column("item")[0].as_py(), file) if packed else _columns(batch)


def _columns(batch: pa.RecordBatch) -> Batch:
    return {ours: _tensors(batch, theirs) for ours, theirs in COLUMNS.items()}


def _tensors(batch: pa.RecordBatch, name: str) -> Array:
    """Return a column [R, *shape]; its type may be one of Ray's, which is registered only where Ray is imported."""
    array, field = batch.column(name), batch.schema.field(name)
    shape = (field.metadata or {}).get(SHAPE)
    if isinstance(array, pa.ExtensionArray) and not isinstance(array.type, pa.FixedShapeTensorType):
        shape, array = array.type.__arrow_ext_serialize__(), array.storage
    values = from_arrow(array, name, 0)
    if values.dtype == object and name in PACKED:
        return np.stack([_unpacked(value, name) for value in values])
    return values.reshape(len(values), *json.loads(shape)) if shape else values


class _Arrays(pickle.Unpickler):
    """Reads pickled arrays of numpy, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of numpy's constructors.

        Raises:
            UnpicklingError: anything else.
        """
        if re.fullmatch(r"numpy(\._?core\.(numeric|multiarray))?", module) and name in CONSTRUCTORS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it would call {module}.{name}")


def _unpacked(value: Any, name: str) -> Array:
    """Return an array that RLlib pickled, compressed and wrote as text."""
    try:
        packed = pa.BufferReader(base64.b64decode(value))
        return np.asarray(_Arrays(pa.CompressedInputStream(packed, "lz4")).load())
    except (
        TypeError,
        ValueError,
        EOFError,
        OSError,
        AttributeError,
        pickle.UnpicklingError,
        pa.ArrowException,
    ) as error:
        raise UserError(f"{name} is no packed array ({first_line(error)}): record numbers") from None


def _episode(packed: bytes, file: Path) -> Batch:
    import msgpack

    try:
        state = msgpack.unpackb(packed, object_hook=_array, strict_map_key=False)
        observations, actions, rewards = (
            np.asarray(state[name]["data"][state[name]["lookback"] :])
            for name in ("observations", "actions", "rewards")
        )
        ended, cut, name = state["is_terminated"], state["is_truncated"], state["id_"]
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise UserError(
            f"{file} has an item that is no episode of one agent ({first_line(error)}): record it with a "
            "single-agent environment"
        ) from None
    last = np.arange(len(rewards)) == len(rewards) - 1
    return {
        "observations": observations[:-1],
        "actions": actions,
        "rewards": rewards,
        "terminateds": last & ended,
        "truncateds": last & (cut or not ended),
        "next_observations": observations[1:],
        "episode_ids": np.full(len(rewards), name),
    }


def _array(packed: dict[Any, Any]) -> Any:
    """Return what msgpack-numpy made of an array or of a number of numpy."""
    nd = packed.get("nd", packed.get(b"nd"))
    if nd is None:
        return packed
    said = {key.decode() if isinstance(key, bytes) else key: value for key, value in packed.items()}
    if said.get("kind") in (b"O", "O"):
        return None  # pickled: infos, which are not taken
    values = np.frombuffer(said["data"], np.dtype(said["type"]))
    return values.reshape(said["shape"]) if nd else values[0]
