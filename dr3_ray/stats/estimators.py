"""What one number stands for several runs, and one number for a whole run."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Estimator = Callable[..., Any]
"""`estimator(values, axis)` reduces `axis`; all of them take finite values only."""


def iqm(values: ArrayLike, axis: int = 0) -> Any:
    """Return the interquartile mean: the mean without a quarter of the runs at either end.

    As rliable's `aggregate_iqm`, `floor(n / 4)` values are cut at each end: below four runs it is the plain mean. It is
    scipy's `trim_mean(values, 0.25, axis)`, whose import takes longer than a small report. NaN for no value.
    """
    array = np.asarray(values)
    if not array.size:
        return np.nan
    n = array.shape[axis]
    cut = n // 4
    ordered = np.moveaxis(np.partition(array, (cut, n - cut - 1), axis), axis, 0)
    return np.mean(ordered[cut : n - cut], axis=0)


def mean(values: ArrayLike, axis: int = 0) -> Any:
    """Return the arithmetic mean."""
    return np.mean(np.asarray(values), axis=axis)


def median(values: ArrayLike, axis: int = 0) -> Any:
    """Return the median."""
    return np.median(np.asarray(values), axis=axis)


def training_average(steps: ArrayLike, values: ArrayLike) -> float:
    """Return the average of one run's curve over its gradient updates: the area under it divided by its length.

    `steps` ascend; both are `[evaluations]`. Evaluations need not be evenly spaced; a NaN is "not measured" and is
    bridged by the straight line between its neighbours. One evaluation stands for itself, none give NaN.
    """
    at, curve = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    measured = ~np.isnan(curve)
    at, curve = at[measured], curve[measured]
    if at.size < 2:
        return float(curve[0]) if at.size else float("nan")
    return float(np.trapezoid(curve, at) / (at[-1] - at[0]))
