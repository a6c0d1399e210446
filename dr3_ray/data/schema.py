"""What a data set is made of: spaces, columns and the manifest.

A data set is a directory: `manifest.json`, `shard-00000.arrow …` (Arrow IPC files, uncompressed, one record batch
each, no nulls) and `episodes.arrow` (one row per episode). Rows are transitions, in the order of their episodes.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym

Array = npt.NDArray[Any]
Columns = dict[str, Array]

FORMAT = 1  # of the manifest; another number is not read
MANIFEST = "manifest.json"
EPISODES = "episodes.arrow"
PARTIAL = ".partial"  # ending of a directory that is still being written


class _Frozen(BaseModel):
    # Infinite bounds and statistics become strings, so that the manifest stays valid JSON.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class SpaceSpec(_Frozen):
    """An observation or action space.

    `low` and `high` hold one number for all elements or one for each, in C order. `dtype` is the type on disk:
    float32, uint8 or bool observations, float32 (Box) or int64 (Discrete) actions. A discrete action is stored as
    0 … n-1 and means `start + action` to the environment.
    """

    kind: Literal["box", "discrete"]
    shape: tuple[PositiveInt, ...] = ()
    dtype: Literal["float32", "uint8", "bool", "int64"]
    n: PositiveInt | None = None
    start: int = 0
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "discrete":
            if self.n is None or self.dtype != "int64" or self.shape:
                raise ValueError("a discrete space needs n, dtype int64 and no shape")
        elif self.low is None or self.high is None or not {len(self.low), len(self.high)} <= {1, self.size}:
            raise ValueError(f"a box of {self.size} elements needs low and high of 1 or {self.size} numbers")
        return self

    @property
    def size(self) -> int:
        """Elements of one observation or action."""
        return math.prod(self.shape)

    def bounds(self) -> tuple[Array, Array]:
        """`low` and `high` as float64 arrays of the space's shape; only for a box."""
        if self.low is None or self.high is None:
            raise TypeError("a discrete space has no bounds")
        return tuple(np.resize(np.asarray(bound), self.shape) for bound in (self.low, self.high))  # type: ignore[return-value]

    @classmethod
    def box(cls, low: npt.ArrayLike, high: npt.ArrayLike, shape: tuple[int, ...], dtype: str = "float32") -> Self:
        """A box; `low` and `high` are numbers or arrays of `shape`."""

        def short(bound: npt.ArrayLike) -> tuple[float, ...]:
            values = np.unique(np.asarray(bound, dtype=np.float64))
            return tuple((values if len(values) == 1 else np.asarray(bound, dtype=np.float64).ravel()).tolist())

        return cls.model_validate(
            {"kind": "box", "shape": shape, "dtype": dtype, "low": short(low), "high": short(high)}
        )

    @classmethod
    def discrete(cls, n: int, start: int = 0) -> Self:
        """n choices, called `start` … `start + n - 1` by the environment."""
        return cls(kind="discrete", dtype="int64", n=n, start=start)

    @classmethod
    def from_gymnasium(cls, space: "gym.Space[Any]") -> Self:
        """The spec of a Gymnasium Box, MultiBinary or Discrete space; UserError for any other.

        Boolean and uint8 boxes keep their type, every other number becomes float32. MultiBinary is a boolean box.
        """
        from gymnasium import spaces

        if isinstance(space, spaces.Discrete):
            return cls.discrete(int(space.n), int(space.start))
        if isinstance(space, spaces.MultiBinary):
            return cls.box(0, 1, space.shape, "bool")
        if not isinstance(space, spaces.Box) or 0 in space.shape:
            raise UserError(f"space {space} is not supported: use a Box, a MultiBinary or a Discrete space")
        dtype = str(space.dtype) if space.dtype in (np.bool_, np.uint8) else "float32"
        return cls.box(space.low, space.high, space.shape, dtype)

    def to_gymnasium(self) -> "gym.Space[Any]":
        """The Gymnasium space of the environment: original action bounds and numbering."""
        from gymnasium import spaces

        if self.n is not None:
            return spaces.Discrete(self.n, start=self.start)
        low, high = (bound.astype(self.dtype) for bound in self.bounds())
        return spaces.Box(low, high, self.shape, np.dtype(self.dtype).type)


def from_env_actions(space: SpaceSpec, actions: npt.ArrayLike, clip: bool = False) -> Array:
    """Actions [*lead, *shape] of the environment as they are stored: float32 in [-1, 1], or int64 from 0.

    Rounding (1e-5 of the half width) is forgiven. An action further out is a UserError, or moved to the bound
    with `clip`; a NaN always is one.
    """
    array: Array = np.asarray(actions)
    if space.n is not None:
        if array.dtype.kind not in "iu":
            raise UserError(f"discrete actions have to be integers, not {array.dtype}: convert the source")
        stored: Array = array.astype(np.int64) - space.start
        if stored.size and (stored.min() < 0 or stored.max() >= space.n):
            outside = int(array.min() if stored.min() < 0 else array.max())
            raise UserError(
                f"action {outside} is outside the space Discrete(n={space.n}, start={space.start}): correct the source"
            )
        return stored
    if array.shape[array.ndim - len(space.shape) :] != space.shape or array.dtype.kind not in "biuf":
        raise UserError(
            f"actions are {array.dtype} of shape {array.shape}, not real numbers of shape [*, {space.shape}]"
        )
    low, high = space.bounds()
    scaled: Array = (array.astype(np.float64) - low) / (high - low) * 2 - 1
    if np.isnan(scaled).any():
        raise UserError("an action is NaN: drop its episode from the source")
    if not clip and scaled.size and np.abs(scaled).max() > 1 + 1e-5:
        worst = float(array.ravel()[np.abs(scaled).argmax()])
        raise UserError(f"action {worst:g} is outside the action space: correct its bounds, or clip the actions")
    clipped: Array = np.clip(scaled, -1, 1).astype(np.float32)
    return clipped


def to_env_actions(space: SpaceSpec, actions: npt.ArrayLike) -> Array:
    """Stored actions [*lead, *shape] as the environment takes them: float32 within its bounds, or int64 from start."""
    array: Array = np.asarray(actions)
    if space.n is not None:
        numbered: Array = array.astype(np.int64) + space.start
        return numbered
    low, high = space.bounds()
    scaled: Array = np.clip(low + (array.astype(np.float64) + 1) / 2 * (high - low), low, high)
    return scaled.astype(np.float32)


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


def columns_of(observation_space: SpaceSpec, action_space: SpaceSpec) -> dict[str, Column]:
    """The columns of every data set with these spaces, in their order on disk."""
    observation = Column(np.dtype(observation_space.dtype), observation_space.shape)
    action = Column(np.dtype(action_space.dtype), None if action_space.kind == "discrete" else action_space.shape)
    real, flag, number = Column(np.dtype(np.float32)), Column(np.dtype(np.bool_)), Column(np.dtype(np.int32))
    return {
        "observations": observation,
        "actions": action,
        "rewards": real,
        "terminateds": flag,
        "truncateds": flag,
        "next_observations": observation,
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


class FileEntry(_Frozen):
    """One Arrow file of the data set."""

    file: str = Field(pattern=r"^[\w-]+\.arrow$")
    rows: PositiveInt
    bytes: PositiveInt
    sha256: str


class Counts(_Frozen):
    """How much there is."""

    rows: PositiveInt
    episodes: PositiveInt
    terminateds: NonNegativeInt
    truncateds: NonNegativeInt


class Statistic(_Frozen):
    """Over all stored values of a column; `episode_returns` over all episodes the rows were drawn from."""

    min: float
    max: float
    mean: float
    std: float


class Provenance(_Frozen):
    """Where the data come from. `notes` are warnings that stay with the data, `details` whatever the source tells."""

    source: str
    version: str = ""
    licence: str = "unknown"
    command: str = ""
    created: str = ""
    details: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Manifest(_Frozen):
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
