"""Observation and action spaces, and actions as they are stored."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, field_validator, model_validator

from dr3_ray.data.number_types import Array, Number, check_held, range_of, within
from dr3_ray.data.products import check_product, product_fields, product_space
from dr3_ray.errors import UserError

if TYPE_CHECKING:
    import gymnasium as gym

    from dr3_ray.observations import Shape
    from dr3_ray.types import Spaces

ELEMENTS = 2**26  # the most of one observation or action
CHOICES = 2**31  # the most of a discrete space
PARTS = 1000  # the most of a dict


def first_wrong(error: ValidationError) -> tuple[str, str]:
    """Return the place of the first mistake that pydantic found, as in `action_space.low`, and the mistake."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(str(part)[:80] for part in first["loc"]), first["msg"].removeprefix("Value error, ")


class Frozen(BaseModel):
    """A part of the manifest, which nobody changes."""

    # Infinite bounds and statistics become strings, so that the manifest stays valid JSON.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def named_parts(nested: Any) -> dict[str, Any]:
    """Return the leaves of nested mappings by their path: {"goal": {"x": a}} as {"goal/x": a}, a leaf as {"": leaf}.

    Of spaces, observations and arrays of observations alike.

    Raises:
        UserError: two leaves have one name.
    """
    if not isinstance(nested, Mapping):
        return {"": nested}
    parts: dict[str, Any] = {}
    for key, inner in nested.items():
        for path, leaf in named_parts(inner).items():
            name = f"{key}/{path}" if path else str(key)
            if name in parts:
                raise UserError(f"two parts of a Dict are called {name!r}: give each a name of its own")
            parts[name] = leaf
    return parts


class SpaceSpec(Frozen):
    """An observation or action space.

    `low` and `high` hold one number for all elements or one for each, in C order. `dtype` is the type on disk:
    float32, uint8 or bool observations, float32 (Box) or int64 (Discrete) actions. `env_dtype` is the environment's
    type where it is another one. A discrete action is stored as 0 … n-1 and means `start + action` to the environment.
    A discrete one with `choices` is a product: each element of an action [*shape] has so many choices, from its number
    in `starts` on, or is binary without them; all combinations are numbered. The `spaces` of a dict are boxes by name,
    and all it has.
    """

    kind: Literal["box", "discrete", "dict"]
    shape: tuple[PositiveInt, ...] = ()
    dtype: Literal["float32", "uint8", "bool", "int64"] | None = None
    env_dtype: Number | None = None
    n: PositiveInt | None = None
    start: int = 0
    choices: tuple[PositiveInt, ...] | None = None
    starts: tuple[int, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    spaces: "dict[str, SpaceSpec] | None" = None

    @field_validator("spaces")
    @classmethod
    def _sorted(cls, spaces: "dict[str, SpaceSpec] | None") -> "dict[str, SpaceSpec] | None":
        """Return the parts in one order, whatever that of a JSON text is."""
        return spaces and dict(sorted(spaces.items()))

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        """Check that the space fits into memory, and that its bounds are bounds."""
        if len(self.shape) > 32 or math.prod(self.shape) > ELEMENTS:
            raise ValueError(f"a space has at most 32 dimensions and {ELEMENTS:,} elements")
        if self.n is not None and (self.n > CHOICES or abs(self.start) > 2**62):
            raise ValueError(f"a discrete space has at most {CHOICES:,} choices, from -2⁶² to 2⁶²")
        if self.spaces is not None and (len(self.spaces) > PARTS or max(map(len, self.spaces), default=0) > 500):
            raise ValueError(f"a dict has at most {PARTS:,} parts with names of up to 500 characters")
        if self.low is not None and self.high is not None:
            low, high = np.asarray(self.low), np.asarray(self.high)
            if len(low) != len(high) and 1 not in (len(low), len(high)):
                raise ValueError("low and high have different lengths")
            if not (low <= high).all():  # nor is NaN
                raise ValueError("a bound is NaN, or low is above high")
            if (low == np.inf).any() or (high == -np.inf).any():
                raise ValueError("low is infinite, or high minus infinite")
            # float32 holds observations of float64 rounded, whatever their bounds
            on_disk = [self.dtype] if self.dtype in ("uint8", "bool") else []
            for name in dict.fromkeys((self.played_dtype.name, *on_disk)):
                check_held(np.dtype(name), np.concatenate([low, high]))
        if self.n is not None and self.played_dtype.kind not in "iu":
            raise ValueError(f"choices are whole numbers, and {self.played_dtype} is no type of these")
        if self.n is not None and self.choices is None:
            least, most = range_of(self.played_dtype)
            if self.start < least or self.start + self.n - 1 > most:
                raise ValueError(f"{self.played_dtype} has numbers from {least:g} to {most:g}, and the choices more")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.choices is not None and self.kind == "discrete":
            check_product(self.n or 0, self.shape, self.choices, self.starts, self.played_dtype)
        elif self.choices is not None or self.starts is not None:
            raise ValueError("only a discrete space has choices of its elements")
        if self.spaces is not None or self.kind == "dict":
            if not self.spaces or "" in self.spaces or any(part.kind != "box" for part in self.spaces.values()):
                raise ValueError("a dict needs spaces: boxes, each with a name")
            if (
                self.shape
                or self.start
                or any(number is not None for number in (self.dtype, self.env_dtype, self.n, self.low, self.high))
            ):
                raise ValueError("a dict has no shape, type or bounds of its own")
        elif self.kind == "discrete":
            alone = (self.choices is None and bool(self.shape)) or (self.choices is not None and self.start != 0)
            if self.n is None or self.dtype != "int64" or alone or self.low is not None or self.high is not None:
                raise ValueError("a discrete space needs n, dtype int64, and neither shape nor bounds")
        elif self.dtype in (None, "int64") or self.n is not None or self.start:
            raise ValueError("a box needs dtype float32, uint8 or bool, and neither n nor start")
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
        """Return `low` and `high` as float64 arrays of the space's shape; only for a box."""
        if self.low is None or self.high is None:
            raise TypeError(f"a {self.kind} space has no bounds")
        return tuple(np.resize(np.asarray(bound), self.shape) for bound in (self.low, self.high))  # type: ignore[return-value]

    @property
    def played_dtype(self) -> np.dtype[Any]:
        """The type of an observation or action in the environment."""
        return np.dtype(self.env_dtype or self.dtype)

    @classmethod
    def box(
        cls,
        low: npt.ArrayLike,
        high: npt.ArrayLike,
        shape: tuple[int, ...],
        dtype: str = "float32",
        env_dtype: str | None = None,
    ) -> Self:
        """Return a box; `low` and `high` are numbers or arrays of `shape`."""

        def short(bound: npt.ArrayLike) -> tuple[float, ...]:
            values = np.unique(np.asarray(bound, dtype=np.float64))
            return tuple((values if len(values) == 1 else np.asarray(bound, dtype=np.float64).ravel()).tolist())

        return cls.model_validate(
            {
                "kind": "box",
                "shape": shape,
                "dtype": dtype,
                "env_dtype": None if env_dtype == dtype else env_dtype,
                "low": short(low),
                "high": short(high),
            }
        )

    @classmethod
    def discrete(cls, n: int, start: int = 0, env_dtype: str = "int64") -> Self:
        """Return n choices, called `start` … `start + n - 1` by the environment."""
        played = None if env_dtype == "int64" else env_dtype
        return cls.model_validate({"kind": "discrete", "dtype": "int64", "env_dtype": played, "n": n, "start": start})

    @classmethod
    def of_actions(cls, space: "gym.Space[Any]") -> Self:
        """Return the spec of a space of actions: as `from_gymnasium`, and products of up to 512 combinations.

        Raises:
            UserError: there is none.
        """
        fields = product_fields(space)
        return cls.model_validate(fields) if fields else cls.from_gymnasium(space)

    @classmethod
    def from_gymnasium(cls, space: "gym.Space[Any]") -> Self:
        """Return the spec of a Gymnasium Box, MultiBinary, Discrete or Dict space.

        Boolean and uint8 boxes keep their type, every other number becomes float32. MultiBinary is a boolean box. The
        parts of a Dict are boxes; those of a Dict in a Dict are called outer/inner.

        Raises:
            UserError: any other.
        """
        from gymnasium import spaces

        try:
            return cls._from_dict(space) if isinstance(space, spaces.Dict) else cls._from_leaf(space)
        except ValidationError as error:
            what = first_wrong(error)[1]
            raise UserError(
                f"a {type(space).__name__} space is not supported ({what}): change it in the source"
            ) from None

    @classmethod
    def _from_leaf(cls, space: "gym.Space[Any]") -> Self:
        from gymnasium import spaces

        kind, shape, dtype = type(space).__name__, space.shape, str(space.dtype)
        if isinstance(space, spaces.Discrete):
            return cls.discrete(int(space.n), int(space.start), dtype)
        if not isinstance(space, spaces.Box | spaces.MultiBinary) or dtype not in get_args(Number) or shape is None:
            raise UserError(
                f"a {kind} space of {space.dtype} is not supported: use a Box, a MultiBinary, a Discrete or a Dict "
                "space of real numbers in the source"
            )
        if 0 in shape:
            raise UserError(f"a {kind} space of shape {shape} has no elements: leave it out in the source")
        if isinstance(space, spaces.MultiBinary):
            return cls.box(0, 1, shape, "bool")
        return cls.box(space.low, space.high, shape, dtype if dtype in ("bool", "uint8") else "float32", dtype)

    @classmethod
    def _from_dict(cls, space: "gym.spaces.Dict") -> Self:
        from gymnasium import spaces

        parts = named_parts(space)
        for name, part in parts.items():
            if not isinstance(part, spaces.Box | spaces.MultiBinary):
                raise UserError(
                    f"its part {name!r} is a {type(part).__name__} space: the parts of a Dict have to be Box or "
                    "MultiBinary spaces, so leave it out in the source, or make it one there (a Discrete one one-hot)"
                )
        if not parts or "" in parts:
            raise UserError(f"a Dict space has the parts {list(parts)}: give each a name of its own")
        specs: dict[str, SpaceSpec] = {}
        for name in sorted(parts):  # in one order, whatever that of the environment is
            try:
                specs[name] = cls.from_gymnasium(parts[name])
            except UserError as error:
                raise UserError(f"its part {name!r}: {error}") from None
        return cls(kind="dict", spaces=specs)

    def to_gymnasium(self) -> "gym.Space[Any]":
        """Return the Gymnasium space of the environment: original bounds, type and numbering. A Dict is not nested."""
        from gymnasium import spaces

        if self.spaces is not None:
            return spaces.Dict({name: part.to_gymnasium() for name, part in self.spaces.items()})
        kind: Any = self.played_dtype.type
        if self.choices is not None:
            product: gym.Space[Any] = product_space(self.shape, self.choices, self.starts, kind)
            return product
        if self.n is not None:
            return spaces.Discrete(self.n, start=self.start, dtype=kind)
        low, high = (within(bound, self.played_dtype) for bound in self.bounds())
        return spaces.Box(low, high, self.shape, kind)


def element_name(column: str, index: Iterable[Any]) -> str:
    """Return the name of an element of a column, `observations[2, 0]`; of a scalar the column's."""
    place = ", ".join(str(int(place)) for place in index)
    return f"{column}[{place}]" if place else column


def training_spaces(observations: SpaceSpec, actions: SpaceSpec) -> "Spaces":
    """Return what the training core needs to know of two spaces.

    Raises:
        UserError: it cannot learn in them.
    """
    if observations.kind == "discrete" or actions.kind == "dict":
        raise UserError(
            f"observations of kind {observations.kind} and actions of kind {actions.kind} cannot be learned from: "
            "observations have to be a Box, or a Dict of them, actions a Box or Discrete"
        )
    from dr3_ray.types import Spaces  # and torch with it, which a data set is opened without

    if actions.n is not None:
        return Spaces(observations.shapes, "discrete", actions.n)
    return Spaces(observations.shapes, "continuous", actions.size)
