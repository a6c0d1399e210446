"""Observation and action spaces, and actions as they are stored."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

from dr3_ray.errors import UserError
from dr3_ray.types import Spaces

if TYPE_CHECKING:
    import gymnasium as gym

    from dr3_ray.observations import Shape

Array = npt.NDArray[Any]


class Frozen(BaseModel):
    """What is written to the manifest."""

    # Infinite bounds and statistics become strings, so that the manifest stays valid JSON.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def named_parts(nested: Any) -> dict[str, Any]:
    """The leaves of nested mappings by their path, {"goal": {"x": a}} as {"goal/x": a}; anything else is {"": itself}.

    Of spaces, observations and arrays of observations alike.
    """
    if not isinstance(nested, Mapping):
        return {"": nested}
    return {
        f"{key}/{path}" if path else str(key): leaf
        for key, inner in nested.items()
        for path, leaf in named_parts(inner).items()
    }


class SpaceSpec(Frozen):
    """An observation or action space.

    `low` and `high` hold one number for all elements or one for each, in C order. `dtype` is the type on disk:
    float32, uint8 or bool observations, float32 (Box) or int64 (Discrete) actions. A discrete action is stored as
    0 … n-1 and means `start + action` to the environment. The `spaces` of a dict are boxes by name, and all it has.
    """

    kind: Literal["box", "discrete", "dict"]
    shape: tuple[PositiveInt, ...] = ()
    dtype: Literal["float32", "uint8", "bool", "int64"] | None = None
    n: PositiveInt | None = None
    start: int = 0
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    spaces: "dict[str, SpaceSpec] | None" = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.spaces is not None or self.kind == "dict":
            if not self.spaces or "" in self.spaces or any(part.kind != "box" for part in self.spaces.values()):
                raise ValueError("a dict needs spaces: boxes, each with a name")
            if self.shape or any(each is not None for each in (self.dtype, self.n, self.low, self.high)):
                raise ValueError("a dict has no shape, type or bounds of its own")
        elif self.kind == "discrete":
            if self.n is None or self.dtype != "int64" or self.shape:
                raise ValueError("a discrete space needs n, dtype int64 and no shape")
        elif self.dtype is None:
            raise ValueError("a box needs dtype")
        elif self.low is None or self.high is None or not {len(self.low), len(self.high)} <= {1, self.size}:
            raise ValueError(f"a box of {self.size} elements needs low and high of 1 or {self.size} numbers")
        return self

    @property
    def parts(self) -> "dict[str, SpaceSpec]":
        """The spaces of a dict by name; any other space is its own only part, without a name."""
        return self.spaces or {"": self}

    @property
    def shapes(self) -> "Shape":
        """The shape, or of a dict those of its parts by name."""
        return self.shape if self.spaces is None else {name: part.shape for name, part in self.spaces.items()}

    @property
    def size(self) -> int:
        """Elements of one observation or action."""
        return sum(math.prod(part.shape) for part in self.parts.values())

    def bounds(self) -> tuple[Array, Array]:
        """`low` and `high` as float64 arrays of the space's shape; only for a box."""
        if self.low is None or self.high is None:
            raise TypeError(f"a {self.kind} space has no bounds")
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
        """The spec of a Gymnasium Box, MultiBinary, Discrete or Dict space; UserError for any other.

        Boolean and uint8 boxes keep their type, every other number becomes float32. MultiBinary is a boolean box. The
        parts of a Dict are boxes; those of a Dict in a Dict are called outer/inner.
        """
        from gymnasium import spaces

        if isinstance(space, spaces.Dict):
            return cls._from_dict(space)
        if isinstance(space, spaces.Discrete):
            return cls.discrete(int(space.n), int(space.start))
        if isinstance(space, spaces.MultiBinary):
            return cls.box(0, 1, space.shape, "bool")
        if not isinstance(space, spaces.Box) or 0 in space.shape:
            raise UserError(f"space {space} is not supported: use a Box, a MultiBinary, a Discrete or a Dict space")
        dtype = str(space.dtype) if space.dtype in (np.bool_, np.uint8) else "float32"
        return cls.box(space.low, space.high, space.shape, dtype)

    @classmethod
    def _from_dict(cls, space: "gym.spaces.Dict") -> Self:
        from gymnasium import spaces

        parts = named_parts(space)
        for name, part in parts.items():
            if not isinstance(part, spaces.Box | spaces.MultiBinary):
                raise UserError(
                    f"observation {name!r} is a {type(part).__name__} space: the parts of a Dict have to be Box or "
                    "MultiBinary spaces, so leave it out in the source, or make it one there (a Discrete one one-hot)"
                )
        if not parts or "" in parts or spaces.flatdim(space) != sum(map(spaces.flatdim, parts.values())):
            raise UserError(f"a Dict space has the parts {list(parts)}: give each a name of its own")
        # in one order, whatever that of the environment is
        return cls(kind="dict", spaces={name: cls.from_gymnasium(parts[name]) for name in sorted(parts)})

    def to_gymnasium(self) -> "gym.Space[Any]":
        """The Gymnasium space of the environment: original action bounds and numbering. A Dict is not nested."""
        from gymnasium import spaces

        if self.spaces is not None:
            return spaces.Dict({name: part.to_gymnasium() for name, part in self.spaces.items()})
        if self.n is not None:
            return spaces.Discrete(self.n, start=self.start)
        low, high = (bound.astype(self.dtype) for bound in self.bounds())
        return spaces.Box(low, high, self.shape, low.dtype.type)


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


def training_spaces(observations: SpaceSpec, actions: SpaceSpec) -> Spaces:
    """What the training core needs to know of two spaces; UserError for those it cannot learn in."""
    if observations.kind == "discrete" or actions.kind == "dict":
        raise UserError(
            f"observations of kind {observations.kind} and actions of kind {actions.kind} cannot be learned from: "
            "observations have to be a Box, or a Dict of them, actions a Box or Discrete"
        )
    if actions.n is not None:
        return Spaces(observations.shapes, "discrete", actions.n)
    return Spaces(observations.shapes, "continuous", actions.size)
