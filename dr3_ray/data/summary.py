"""What a data set holds, in numbers that a person or a program reads: returns, lengths, actions, ranges."""

import numpy as np
from pydantic import BaseModel, ConfigDict

from dr3_ray.data.actions import to_env_actions
from dr3_ray.data.number_types import Array
from dr3_ray.data.pairs import share_of_pairs
from dr3_ray.data.reader import Dataset
from dr3_ray.data.schema import Statistic
from dr3_ray.data.spaces import SpaceSpec, element_name, named_parts

CHUNK = 2**24  # bytes of rows that are looked at together
ELEMENTS = 512  # of observations or actions, up to which each one's range is told; of an image nobody wants to know
PAIRS = 2**30  # bytes of observations, up to which next pairs are looked for among the rows: seconds
BINS = 20
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
EDGE = 1e-3  # of the half width of its bounds, within which an action is at a bound


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class Spread(_Said):
    """A quantity over episodes: its mean, quantiles, and how many episodes lie between two edges."""

    mean: float
    min: float
    max: float
    quantiles: dict[str, float]
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Array) -> "Spread":
        """Describe values [E], at least one."""
        counts, edges = np.histogram(values, BINS if values.min() < values.max() else 1)
        quantiles = np.quantile(values, SHARES).tolist()
        return cls(
            mean=float(values.mean()),
            min=float(values.min()),
            max=float(values.max()),
            quantiles={f"{share:g}": value for share, value in zip(SHARES, quantiles, strict=True)},
            edges=tuple(edges.tolist()),
            counts=tuple(counts.tolist()),
        )


class Element(_Said):
    """One number of a row: its range, and of an action its bounds and the share of rows at each of them."""

    low: float | None = None
    high: float | None = None
    min: float
    max: float
    at_low: float | None = None
    at_high: float | None = None


class Coverage(_Said):
    """Which actions there are: how often each of a Discrete space, or how far each element of a Box goes.

    `at_bounds` is the share of rows with an element at one of its bounds.
    """

    counts: dict[int, int] | None = None
    elements: dict[str, Element] | None = None
    at_bounds: float | None = None


class Summary(_Said):
    """All that `dr3-ray data info` and `plot` tell of the rows.

    Lengths are in `length_of`: `steps`, or `stored rows` where these are a subsample of the steps.
    """

    rows: int
    episodes: int
    terminated: int
    truncated: int
    returns: Spread
    lengths: Spread
    length_of: str
    actions: Coverage
    columns: dict[str, Statistic]
    elements: dict[str, Element]
    pairs_in_data: float | None
    """Share of recorded (s', a') that are rows; None where there are none, or where that would take long."""


def summarize(dataset: Dataset) -> Summary:
    """Describe a data set; actions, and observations of few elements, are read from the first row to the last."""
    counts, table, space = dataset.manifest.counts, dataset.episodes, dataset.action_space
    told = dataset.observation_space.size <= ELEMENTS
    names = ["actions", "observations"] if told else ["actions"]
    actions: _Choices | _Reach = _Choices(space) if space.n is not None else _Reach(space)
    ranges = dict[str, _Range]()
    step = max(1, CHUNK // (4 * (space.size + told * dataset.observation_space.size + 1)))
    for start in range(0, len(dataset), step):
        columns = dataset.take(np.arange(start, min(start + step, len(dataset))), names)
        actions.add(columns.pop("actions"))
        for name, values in named_parts(columns).items():
            ranges.setdefault(name, _Range()).add(values)
    return Summary(
        rows=counts.rows,
        episodes=counts.episodes,
        terminated=counts.terminateds,
        truncated=counts.truncateds,
        returns=Spread.of(table["returns"]),
        lengths=Spread.of(table["lengths"]),
        length_of="steps" if dataset.manifest.complete_episodes else "stored rows",
        actions=actions.coverage(),
        columns=dataset.statistics(),
        elements={name: element for column, seen in ranges.items() for name, element in seen.elements(column).items()},
        pairs_in_data=_pairs(dataset),
    )


def _pairs(dataset: Dataset) -> float | None:
    size = sum(part.size * np.dtype(part.dtype).itemsize for part in dataset.observation_space.parts.values())
    share = share_of_pairs(dataset) if size * len(dataset) <= PAIRS else np.nan
    return None if np.isnan(share) else share


class _Range:
    """The least and greatest value of each element of a column."""

    low: Array = np.array(np.inf)
    high: Array = np.array(-np.inf)

    def add(self, values: Array) -> None:
        """Take rows [R, *shape]."""
        self.low, self.high = np.minimum(self.low, values.min(0)), np.maximum(self.high, values.max(0))

    def elements(self, column: str) -> dict[str, Element]:
        """Return the range of each element by its name."""
        return {
            element_name(column, index): Element(min=float(self.low[index]), max=float(self.high[index]))
            for index in np.ndindex(self.low.shape)
        }


class _Choices:
    """How often each action of a Discrete space was taken."""

    def __init__(self, space: SpaceSpec) -> None:
        self._space, self._counts = space, dict[int, int]()

    def add(self, actions: Array) -> None:
        """Take stored actions [R]."""
        for number, count in zip(*(part.tolist() for part in np.unique(actions, return_counts=True)), strict=True):
            self._counts[number] = self._counts.get(number, 0) + count

    def coverage(self) -> Coverage:
        """Return the counts by the environment's numbers, with those of no row if the space is small."""
        choices = self._space.n or 0
        numbers = range(choices) if choices <= ELEMENTS else sorted(self._counts)
        return Coverage(counts={self._space.start + number: self._counts.get(number, 0) for number in numbers})


class _Reach:
    """How far actions of a Box go, and how often they are at a bound."""

    def __init__(self, space: SpaceSpec) -> None:
        self._space, self._range, self._rows, self._any = space, _Range(), 0, 0
        self._at_low, self._at_high = np.zeros(space.size, np.int64), np.zeros(space.size, np.int64)

    def add(self, actions: Array) -> None:
        """Take stored actions [R, A]."""
        low, high = actions <= -1 + EDGE, actions >= 1 - EDGE
        self._range.add(actions)
        self._rows += len(actions)
        self._at_low += low.sum(0)
        self._at_high += high.sum(0)
        self._any += int((low | high).any(1).sum())

    def coverage(self) -> Coverage:
        """Return the shares, and in the environment's units bounds and range of each element, unless they are many."""
        least, most = (to_env_actions(self._space, end) for end in (self._range.low, self._range.high))
        low, high = self._space.bounds()
        places = np.ndindex(self._space.shape) if self._space.size <= ELEMENTS else ()
        elements = {
            element_name("actions", index): Element(
                low=float(low[index]),
                high=float(high[index]),
                min=float(least[index]),
                max=float(most[index]),
                at_low=float(below / self._rows),
                at_high=float(above / self._rows),
            )
            for index, below, above in zip(places, self._at_low, self._at_high, strict=False)
        }
        return Coverage(elements=elements, at_bounds=self._any / self._rows)
