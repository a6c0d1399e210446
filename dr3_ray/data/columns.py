"""The columns of a data set, and how they lie on disk."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dr3_ray.data.number_types import Array
from dr3_ray.data.spaces import SpaceSpec

Columns = dict[str, Array]


@dataclass(frozen=True)
class Column:
    """How a column lies on disk: element type, and the shape of a row, flattened there (None: one plain value)."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Elements of a row."""
        return math.prod(self.shape or ())

    @property
    def is_bit(self) -> bool:
        """Whether a row is one bit."""
        return self.dtype == np.bool_ and self.shape is None

    @property
    def packed(self) -> bool:
        """Whether a row is a row of bits, padded to whole bytes."""
        return self.dtype == np.bool_ and self.shape is not None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row in memory as it is on disk: bit rows as packed bytes, others flat, plain values ()."""
        return () if self.shape is None else ((self.size + 7) // 8,) if self.packed else (self.size,)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in the writer's buffer."""
        return math.prod(self.row_shape) * self.dtype.itemsize

    @property
    def arrow_type(self) -> pa.DataType:
        element = pa.from_numpy_dtype(self.dtype)
        if self.shape is None:
            return element
        size = 8 * self.row_shape[0] if self.packed else self.size
        return pa.list_(pa.field("item", element, nullable=False), size)


def part_column(column: str, part: str) -> str:
    """Return the name on disk of a part of an observation column, `observations/image`.

    Without a part, it is the column's.
    """
    return f"{column}/{part}" if part else column


def columns_of(observation_space: SpaceSpec, action_space: SpaceSpec) -> dict[str, Column]:
    """Return the columns of every data set with these spaces, in their order on disk; one for each part of a dict."""

    def observation(name: str) -> dict[str, Column]:
        return {
            part_column(name, part): Column(np.dtype(space.dtype), space.shape)
            for part, space in observation_space.parts.items()
        }

    # a Box action of any shape is a vector on disk and in training
    action = Column(np.dtype(action_space.dtype), None if action_space.kind == "discrete" else (action_space.size,))
    real, flag, number = Column(np.dtype(np.float32)), Column(np.dtype(np.bool_)), Column(np.dtype(np.int32))
    return {
        **observation("observations"),
        "actions": action,
        "rewards": real,
        "terminateds": flag,
        "truncateds": flag,
        **observation("next_observations"),
        "next_actions": action,
        "next_actions_valid": flag,
        "monte_carlo_returns": real,
        "episode_ids": number,
        "timesteps": number,
    }


def parts_on_disk(columns: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the names on disk of each column's parts; most have one part, without a name."""
    parts: dict[str, dict[str, str]] = {}
    for name in columns:
        column, _, part = name.partition("/")
        parts.setdefault(column, {})[part] = name
    return parts


EPISODE_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in [
            ("episode_ids", pa.int64()),
            ("offsets", pa.int64()),
            ("lengths", pa.int64()),
            ("returns", pa.float64()),
            ("terminated", pa.bool_()),
        ]
    ]
)


def arrow_schema(columns: Mapping[str, Column]) -> pa.Schema:
    """Return the schema of a file with these columns."""
    return pa.schema([pa.field(name, column.arrow_type, nullable=False) for name, column in columns.items()])
