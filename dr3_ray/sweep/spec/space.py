"""What an option may be in a sweep: lists, ranges to draw from, lists that go together, and conditions on them."""

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictFloat,
    Tag,
)
from pydantic import model_validator as check

from dr3_ray.errors import UserError
from dr3_ray.sweep.spec.condition import Condition, ValueCondition, meets
from dr3_ray.sweep.spec.counts import Draws

T = TypeVar("T")
NonEmpty = Annotated[tuple[T, ...], Field(min_length=1)]
Assignment = dict[str, Any]  # options by name

DIGITS = 4  # of a drawn number: the same on every machine, and short enough to be typed again


class Space(BaseModel):
    """Values of one option or, in a zip, of several."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    when: Condition = {}
    """Only where this is met; elsewhere the option keeps its default."""

    def points(self, name: str, seed: int) -> list[Assignment]:
        """Return the assignments of an axis, one for each value; `name` and `seed` decide what is drawn."""
        return [{name: value} for value in self.values(random.Random(f"{seed}:{name}"))]

    def values(self, source: random.Random) -> Iterable[Any]:
        """Return the values of one option."""
        raise NotImplementedError

    def options(self, name: str, seed: int) -> list[Assignment]:
        """Return all assignments that a search may choose from; none of a range."""
        return self.points(name, seed)

    @property
    def names(self) -> tuple[str, ...]:
        """The options that are set, where these have other names than the axis."""
        return ()


class Grid(Space):
    """A list of values; a plain list stands for it."""

    grid: NonEmpty[Any]
    """The values."""

    def values(self, source: random.Random) -> Iterable[Any]:
        return self.grid


class Choice(Space):
    """A list to draw from."""

    choice: NonEmpty[Any]
    """What to draw from; each draw has all of them before it."""
    samples: Draws | None = None
    """How many draws; a search needs no number."""

    def values(self, source: random.Random) -> Iterable[Any]:
        # from random() alone, whose sequence Python promises to keep
        return [self.choice[int(source.random() * len(self.choice))] for _ in range(self.samples or 0)]

    def options(self, name: str, seed: int) -> list[Assignment]:
        return [{name: value} for value in self.choice]


class Range(Space):
    """A range of numbers."""

    samples: Draws | None = None
    """How many numbers to draw; more of them keep those before. A search needs no number."""
    also: tuple[StrictFloat, ...] = ()
    """Numbers that come before the drawn ones, such as a baseline of 0."""

    def draw(self, source: random.Random, low: float, high: float) -> Iterator[float]:
        """Draw uniformly distributed numbers."""
        return (low + source.random() * (high - low) for _ in range(self.samples or 0))

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest number."""
        raise NotImplementedError


class Uniform(Range):
    """A range of numbers that are drawn uniformly, rounded to four digits."""

    uniform: tuple[StrictFloat, StrictFloat]
    """The least and the largest number."""

    @check(mode="after")
    def _range(self) -> Self:
        return _increasing(self, self.uniform)

    def values(self, source: random.Random) -> Iterable[Any]:
        return [*self.also, *(rounded(number, *self.uniform) for number in self.draw(source, *self.uniform))]

    @property
    def bounds(self) -> tuple[float, float]:
        return self.uniform


class LogUniform(Range):
    """A range of numbers whose logarithms are drawn uniformly, rounded to four digits."""

    log_uniform: tuple[StrictFloat, StrictFloat]
    """The least and the largest number, both above 0."""

    @check(mode="after")
    def _range(self) -> Self:
        if self.log_uniform[0] <= 0:
            raise ValueError("a logarithm needs numbers above 0: for 0 itself give also: [0]")
        return _increasing(self, self.log_uniform)

    def values(self, source: random.Random) -> Iterable[Any]:
        logarithms = self.draw(source, *map(math.log, self.log_uniform))
        return [*self.also, *(rounded(math.exp(logarithm), *self.log_uniform) for logarithm in logarithms)]

    @property
    def bounds(self) -> tuple[float, float]:
        return self.log_uniform


def _increasing(space: T, bounds: tuple[float, float]) -> T:
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{low:g} to {high:g} is no range: give the lower number first")
    return space


def rounded(number: float, low: float, high: float) -> float:
    """Return a drawn number with as many digits as members have."""
    return min(max(float(f"{number:.{DIGITS}g}"), low), high)


def kind(value: Any) -> str | None:
    """Return the key by which a space is known; a list is a grid without saying so."""
    if isinstance(value, list | tuple):
        return "list"
    keys = type(value).model_fields if isinstance(value, Space) else value
    return next((key for key in KINDS if key in keys), None) if isinstance(keys, dict) else None


KINDS = ("grid", "choice", "uniform", "log_uniform", "zip")
_of_kind = Discriminator(
    kind,
    custom_error_type="space",
    custom_error_message="a list, or a mapping with one of " + ", ".join(KINDS) + ", is wanted",
)


def _known(value: Any) -> Any:
    """Refuse a mapping of no kind: one of its keys was mistyped."""
    if isinstance(value, dict) and kind(value) is None:
        for key in value:
            if near := get_close_matches(str(key), KINDS, 1):
                raise ValueError(f"unknown key {key!r}: did you mean {near[0]!r}?")
    return value


Values = Annotated[
    Annotated[NonEmpty[Any], Tag("list")]
    | Annotated[Grid, Tag("grid")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")],
    _of_kind,
    BeforeValidator(_known),
]
"""The values of one option."""

Numbers = Annotated[
    Annotated[NonEmpty[StrictFloat], Tag("list")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")],
    _of_kind,
    BeforeValidator(_known),
]
"""The values of a number that every member has."""


class Zip(Space):
    """Options whose first values go together, then their second ones, and so on; the axis has any name."""

    zip: Annotated[dict[str, Values], Field(min_length=1)]
    """Options, each with its values: all the same number of them, drawn or listed."""

    @check(mode="after")
    def _equal(self) -> Self:
        if any(getattr(values, "when", None) for values in self.zip.values()):
            raise ValueError("what goes together has one condition: give the zip itself the `when`")
        for name, values in self.zip.items():
            if isinstance(values, Range | Choice) and values.samples is None:
                raise ValueError(f"{name}: samples is missing: say how many to draw")
        counts = {name: len(self._column(name, 0)) for name in self.zip}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise ValueError(f"lists that go together are of one length, and {told}")
        return self

    def points(self, name: str, seed: int) -> list[Assignment]:
        columns = [self._column(name, seed) for name in self.zip]
        return [{key: value for point in row for key, value in point.items()} for row in zip(*columns, strict=True)]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.zip)

    def _column(self, name: str, seed: int) -> list[Assignment]:
        return space_of(self.zip[name]).points(name, seed)


Axis = Annotated[
    Annotated[NonEmpty[Any], Tag("list")]
    | Annotated[Grid, Tag("grid")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[Zip, Tag("zip")],
    _of_kind,
    BeforeValidator(_known),
]
"""The values of one option or of several that go together."""
MODELS: dict[str, type[BaseModel]] = {
    "grid": Grid, "choice": Choice, "uniform": Uniform, "log_uniform": LogUniform, "zip": Zip, "bounds": ValueCondition,
}  # fmt: skip


def space_of(axis: Any) -> Space:
    """Return the space that an axis stands for."""
    return axis if isinstance(axis, Space) else Grid(grid=axis)


def names_of(name: str, axis: Any) -> tuple[str, ...]:
    """Return the options that an axis of this name sets."""
    return space_of(axis).names or (name,)


def repeated(axis: Any) -> Any:
    """Return the first value that an axis lists again, or None; drawn ones do not count."""
    space = space_of(axis)
    if isinstance(space, Zip):
        columns = [space_of(values) for values in space.zip.values()]
        rows = [column.grid for column in columns if isinstance(column, Grid)]
        listed: Iterable[Any] = zip(*rows, strict=True) if len(rows) == len(columns) else ()
    else:
        listed = getattr(space, "grid", getattr(space, "also", ()))
    seen: set[Any] = set()
    for value in listed:
        key = value if isinstance(value, int | float | str) else json.dumps(value, sort_keys=True, default=str)
        if key in seen:
            return value
        seen.add(key)
    return None


def ordered(axes: Mapping[str, Any], coefficients: Any | None) -> list[tuple[str, Space]]:
    """Return the axes and `dr3_coeff`, if it has values.

    Those with a condition come last: they can look at all others.
    """
    spaces = [(name, space_of(axis)) for name, axis in axes.items()]
    regular = [] if coefficients is None else [("dr3_coeff", space_of(coefficients))]
    return [name for name in spaces if not name[1].when] + regular + [name for name in spaces if name[1].when]


def expand(spaces: Iterable[tuple[str, Space]], known: Mapping[str, Any], seed: int) -> list[Assignment]:
    """Return every combination of ordered spaces; `known` is what conditions see besides.

    Raises:
        UserError: an option is set twice in one combination.
    """
    assignments: list[Assignment] = [{}]
    for name, space in spaces:
        points = space.points(name, seed)
        assignments = [
            joined(name, before, point)
            for before in assignments
            for point in (points if meets(space.when, {**known, **before}) else [{}])
        ]
    return assignments


def joined(name: str, before: Assignment, point: Assignment) -> Assignment:
    """Return the options that an axis of this name sets, beside those that are set already.

    Raises:
        UserError: both set the same option.
    """
    if twice := before.keys() & point.keys():
        raise UserError(f"axes.{name}: another axis has set {min(twice)!r} already: leave one out")
    return before | point
