"""How well a criterion that needs no rollouts picks among configurations."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # which loads its parts when they are asked for
from numpy.typing import NDArray

from dr3_ray.stats.bootstrap import CONFIDENCE, Estimate
from dr3_ray.stats.estimators import iqm

RESAMPLES = 2_000
Runs = Sequence[Sequence[float]]  # of each configuration its runs

Scores = NDArray[np.float64]  # [resamples, configurations]


class Quality(NamedTuple):
    """The agreement of a criterion with returns, over configurations."""

    correlation: Estimate
    """Spearman's ρ between criterion and return: 1 is the same order."""
    regret: Estimate
    """Regret@1: the best configuration's return minus that of the one which the criterion picks, 0 or more."""
    picks: int | None
    """The configuration with the highest criterion, by its place; None: there is none."""


def selection_quality(criterion: Runs, returns: Runs) -> Quality:
    """Measure how a criterion agrees with returns; for each configuration both hold one number a run, in equal order.

    More of the criterion is better. A configuration counts with the interquartile mean over those of its runs that have
    both numbers; one without any is left out. Intervals are 95% bootstrap percentiles over the runs of each
    configuration; there is none as soon as one of them has a single run, and no estimate from fewer than three
    configurations.
    """
    pairs = [np.asarray([one, two], dtype=np.float64).T for one, two in zip(criterion, returns, strict=True)]
    pairs = [each[np.isfinite(each).all(axis=1)] for each in pairs]
    counted = [place for place, each in enumerate(pairs) if len(each)]
    kept = [pairs[place] for place in counted]
    left_out = len(pairs) - len(kept)
    if len(kept) < 3:
        nothing = Estimate(np.nan, np.nan, np.nan, 0, len(pairs))
        return Quality(nothing, nothing, None)
    said, earned = (np.array([[iqm(each[:, column]) for each in kept]]) for column in (0, 1))
    values = _correlation(said, earned)[0], _regret(said, earned)[0]
    bounds = [(np.nan, np.nan)] * 2
    if min(map(len, kept)) > 1:
        rng = np.random.default_rng(0)
        again = [each[rng.integers(len(each), size=(RESAMPLES, len(each)))] for each in kept]
        drawn = [np.stack([iqm(each[:, :, column], axis=1) for each in again], axis=1) for column in (0, 1)]
        tails = 100 * (1 - CONFIDENCE) / 2
        for place, resampled in enumerate((_correlation(*drawn), _regret(*drawn))):
            low, high = np.nanpercentile(resampled, [tails, 100 - tails])
            bounds[place] = (min(low, values[place]), max(high, values[place]))
    correlation, regret = (
        Estimate(float(value), float(low), float(high), len(kept), left_out)
        for value, (low, high) in zip(values, bounds, strict=True)
    )
    return Quality(correlation, regret, counted[int(said[0].argmax())])


def _correlation(said: Scores, earned: Scores) -> NDArray[np.float64]:
    """Return Spearman's ρ of each resample; NaN where all configurations are level."""
    ranks = [scipy.stats.rankdata(each, axis=1) for each in (said, earned)]
    first, second = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    with np.errstate(invalid="ignore"):
        return (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))  # type: ignore[no-any-return]


def _regret(said: Scores, earned: Scores) -> NDArray[np.float64]:
    picked = np.take_along_axis(earned, said.argmax(axis=1, keepdims=True), axis=1)[:, 0]
    return earned.max(axis=1) - picked  # type: ignore[no-any-return]
