"""Statistics of a column that comes in parts."""

import math

import numpy as np

from dr3_ray.data.columns import part_column
from dr3_ray.data.number_types import Array
from dr3_ray.data.schema import Statistic
from dr3_ray.data.spaces import SpaceSpec


class Moments:
    """Minimum, maximum, mean and variance of a stream, merged chunk by chunk (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._min, self._max = math.inf, -math.inf

    def add(self, values: Array) -> None:
        """Take a chunk of any shape, an empty one too."""
        if values.size == 0:
            return
        count, mean = values.size, float(values.mean(dtype=np.float64))
        squares = float(values.var(dtype=np.float64)) * count
        self.merge(count, mean, squares, float(values.min()), float(values.max()))

    def merge(self, count: int, mean: float, squares: float, low: float, high: float) -> None:
        """Take a chunk by its `state`."""
        if count == 0:
            return
        total, shift = self._count + count, mean - self._mean
        self._squares += squares + shift**2 * self._count * count / total
        self._mean += shift * count / total
        self._count = total
        self._min, self._max = min(self._min, low), max(self._max, high)

    def state(self) -> tuple[int, float, float, float, float]:
        """Return count, mean, sum of squared deviations, minimum and maximum."""
        return self._count, self._mean, self._squares, self._min, self._max

    def result(self) -> Statistic:
        """Return the statistics of all chunks; at least one was not empty."""
        return Statistic(min=self._min, max=self._max, mean=self._mean, std=math.sqrt(self._squares / self._count))


def described(observation_space: SpaceSpec) -> dict[str, Moments]:
    """Return empty moments for each column that has statistics in a manifest."""
    names = ["rewards", "monte_carlo_returns", "episode_returns"]
    for part, space in observation_space.parts.items():
        if space.dtype == "float32":
            names.append(part_column("observations", part))
    return {name: Moments() for name in names}
