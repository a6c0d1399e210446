"""What a data set is made of: columns and the manifest.

A data set is a directory: `manifest.json`, `shard-00000.arrow …` (Arrow IPC files, uncompressed, one record batch
each, no nulls) and `episodes.arrow` (one row per episode). Rows are transitions, in the order of their episodes.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from dr3_ray.data.spaces import Array, Frozen, SpaceSpec
from dr3_ray.errors import UserError

Columns = dict[str, Array]

FORMAT = 1  # of the manifest; another number is not read
MANIFEST = "manifest.json"
EPISODES = "episodes.arrow"
PARTIAL = ".partial"  # ending of a directory that is still being written


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
    """The name on disk of a part of an observation column, `observations/image`; without a part that of the column."""
    return f"{column}/{part}" if part else column


def columns_of(observation_space: SpaceSpec, action_space: SpaceSpec) -> dict[str, Column]:
    """The columns of every data set with these spaces, in their order on disk; one for each part of a dict."""

    def observation(name: str) -> dict[str, Column]:
        return {
            part_column(name, part): Column(np.dtype(space.dtype), space.shape)
            for part, space in observation_space.parts.items()
        }

    action = Column(np.dtype(action_space.dtype), None if action_space.kind == "discrete" else action_space.shape)
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


def arrow_schema(columns: dict[str, Column]) -> pa.Schema:
    """The schema of every shard."""
    return pa.schema([pa.field(name, column.arrow_type, nullable=False) for name, column in columns.items()])


class FileEntry(Frozen):
    """One Arrow file of the data set."""

    file: str = Field(pattern=r"^[\w-]+\.arrow$")
    rows: PositiveInt
    bytes: PositiveInt
    sha256: str


class Counts(Frozen):
    """How much there is."""

    rows: PositiveInt
    episodes: PositiveInt
    terminateds: NonNegativeInt
    truncateds: NonNegativeInt


class Statistic(Frozen):
    """Over all stored values of a column; `episode_returns` over all episodes the rows were drawn from."""

    min: float
    max: float
    mean: float
    std: float


class Provenance(Frozen):
    """Where the data come from. `notes` are warnings that stay with the data, `details` whatever the source tells."""

    source: str
    version: str = ""
    licence: str = "unknown"
    command: str = ""
    created: str = ""
    details: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Manifest(Frozen):
    """`manifest.json`: everything about a data set but its rows.

    `gamma` is the discount of the stored Monte-Carlo returns. `complete_episodes` is false for a subsample of rows,
    whose returns cannot be computed again. `environment` names what to roll out in: "minatar:NAME", "gymnasium:ID".
    """

    format: Literal[1] = 1
    name: str
    gamma: float = Field(ge=0, le=1)
    complete_episodes: bool
    observation_space: SpaceSpec
    action_space: SpaceSpec
    environment: str | None = None
    counts: Counts
    shards: tuple[FileEntry, ...] = Field(min_length=1)
    episodes: FileEntry
    statistics: dict[str, Statistic]
    provenance: Provenance

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the data set but this one."""
        return (*self.shards, self.episodes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the checksums of all files and the counts: the identity of the contents."""
        identity = [[entry.sha256 for entry in self.files], self.counts.model_dump()]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @classmethod
    def parse(cls, content: bytes, where: str | os.PathLike[str]) -> Self:
        """The manifest of the data set at `where`; UserError if this version cannot read it."""
        try:
            document = json.loads(content)
        except ValueError as error:
            raise damaged(where, f"{MANIFEST} cannot be read ({error})") from None
        found = document.get("format") if isinstance(document, dict) else None
        if found != FORMAT:
            raise UserError(
                f"{where} has manifest format {found!r}, this version of dr3-ray reads {FORMAT}: "
                "import the data again, or install the version that wrote them"
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise damaged(where, f"{MANIFEST} is wrong at {name or 'the top'} ({first['msg']})") from None


def damaged(where: str | os.PathLike[str], what: str) -> UserError:
    """The one line about a data set that is not as it was written."""
    return UserError(f"{os.fspath(where)} is damaged: {what}; copy or import it again")
