"""Recordings of RLlib's new API stack: a folder of Parquet files with a row for each step.

They are what `AlgorithmConfig.offline_data(output=..., output_write_episodes=False)` writes without compressed columns,
and what stock BC and MARWIL read by default. Whole episodes would need msgpack-numpy on both sides.
"""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dr3_ray.data.exporters.job import Job
from dr3_ray.data.exporters.rows import batches
from dr3_ray.data.importers.rllib import COLUMNS, SHAPE
from dr3_ray.data.number_types import Array

FILE_BYTES = 2**26  # of rows in a file: Ray reads several at a time
TENSOR = {b"ARROW:extension:name": b"ray.data.arrow_tensor_v2"}  # the type of Ray Data's columns of arrays


def write_rllib(job: Job) -> None:
    """Write files into a folder as RLlib's first environment runner names it."""
    run = job.path / "run-000000-00001"
    run.mkdir()
    for number, batch in enumerate(batches(job.episodes, FILE_BYTES)):
        named = batch | {"episode_ids": batch["episode_ids"].astype(np.str_)}
        columns = [_column(theirs, named[ours]) for ours, theirs in COLUMNS.items()]
        table = pa.table([array for _, array in columns], pa.schema([field for field, _ in columns]))
        pq.write_table(table, run / f"{number:06d}.parquet")


def _column(name: str, values: Array) -> tuple[pa.Field, pa.Array]:
    """Return a column as Ray Data writes it, without Ray: [R] plain, [R, *shape] as lists that say their shape."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if values.ndim == 1:
        return pa.field(name, flat.type), flat
    starts = np.arange(len(values) + 1) * math.prod(values.shape[1:])
    lists = pa.LargeListArray.from_arrays(pa.array(starts), flat)
    return pa.field(name, lists.type, metadata=TENSOR | {SHAPE: json.dumps(values.shape[1:]).encode()}), lists
