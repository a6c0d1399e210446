"""Percentile bootstrap intervals over runs (Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice").

Runs are resampled with replacement, the estimator is applied to each resample, and the interval lies between the
outer percentiles of the results. With few runs it is too narrow: at two or three runs it is their range, which covers
the median of many more runs with probability 50% or 75%, not 95%. A single run has no interval.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # which loads its parts when they are asked for
from numpy.typing import ArrayLike, NDArray

from dr3_ray.stats.estimators import Estimator, iqm

CONFIDENCE = 0.95
RESAMPLES = 5_000
_BATCH = 500  # resamples held in memory at once,
_VALUES = 10_000_000  # of so many values in all


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate from `n` finite values; `left_out` further ones were not finite.

    `value` is NaN without any value, `low` and `high` are NaN where there is no interval to be had.
    """

    value: float
    low: float
    high: float
    n: int
    left_out: int

    @property
    def has_interval(self) -> bool:
        return not np.isnan(self.low)


@dataclass(frozen=True, slots=True)
class Band:
    """Estimates along a curve: each field is `[steps]`, with NaN as in `Estimate`."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]


def bootstrap_estimate(*strata: ArrayLike, estimator: Estimator = iqm, seed: int = 0) -> Estimate:
    """Estimate over all values with the 95% interval.

    Each argument holds the values of one stratum, such as the runs on one data set, `[runs]`: they are pooled for the
    estimate and resampled each within itself, so that no resample lacks a data set. There is no interval as soon as
    a stratum has fewer than two finite values. The order of the values does not matter.
    """
    values = [np.asarray(stratum, dtype=np.float64).ravel() for stratum in strata]
    finite = [np.sort(stratum[np.isfinite(stratum)])[:, None] for stratum in values]
    n = sum(len(stratum) for stratum in finite)
    left_out = sum(len(stratum) for stratum in values) - n
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, left_out)
    value, low, high = (float(array[0]) for array in _percentiles(finite, estimator, seed))
    return Estimate(value, low, high, n, left_out)


def bootstrap_band(curves: ArrayLike, estimator: Estimator = iqm, seed: int = 0) -> Band:
    """Return pointwise estimates and 95% intervals of `curves`, `[runs, steps]`, each step from its finite values."""
    values = np.asarray(curves, dtype=np.float64)
    # Only the values at a step matter to a pointwise interval, so each column is sorted: the finite ones come first.
    values = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)
    n = np.isfinite(values).sum(axis=0)
    value, low, high = np.full((3, len(n)), np.nan)
    for runs in set(n.tolist()) - {0}:
        columns = np.flatnonzero(n == runs)
        for at in np.array_split(columns, -(-columns.size * runs * _BATCH // _VALUES)):
            value[at], low[at], high[at] = _percentiles([values[:runs, at]], estimator, seed)
    return Band(value, low, high, n)


def _percentiles(strata: list[NDArray[np.float64]], estimator: Estimator, seed: int) -> tuple[NDArray[np.float64], ...]:
    """Return `(value, low, high)`, each `[columns]`, of strata `[runs, columns]`."""

    def pooled(*samples: NDArray[np.float64], axis: int) -> Any:
        return estimator(np.concatenate(samples, axis=axis), axis=axis)

    value = np.asarray(pooled(*strata, axis=0))
    if min(map(len, strata)) < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    interval = scipy.stats.bootstrap(
        strata,
        pooled,
        axis=0,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    # Equal values summed in another order may differ in the last bit: the estimate still belongs to its interval.
    return value, np.minimum(interval.low, value), np.maximum(interval.high, value)
