"""How well a criterion that needs no rollouts picks among configurations."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # which loads its parts when they are asked for
from numpy.typing import ArrayLike, NDArray

from dr3_ray.stats.bootstrap import CONFIDENCE, Estimate
from dr3_ray.stats.estimators import iqm

RESAMPLES = 2_000
FEWEST = 3  # configurations, below which an order says nothing
Runs = Sequence[Sequence[float]]  # of each configuration its runs

Scores = NDArray[np.float64]  # [resamples, configurations]
NOTHING = Estimate(np.nan, np.nan, np.nan, 0, 0)


class Quality(NamedTuple):
    """The agreement of a criterion with returns, over configurations."""

    correlation: Estimate
    """Spearman's ρ between criterion and return: 1 is the same order."""
    regret: Estimate
    """Regret@1: the best configuration's return minus that of the one which the criterion picks, 0 or more."""
    picks: int | None
    """The configuration with the highest criterion, by its place; None: there is none."""
    regret_at_k: Estimate = NOTHING
    """Regret@k: the same for the best of the k configurations that the criterion places first."""


class _Sample(NamedTuple):
    """The configurations that count, and what they have: the first row as measured, the others resampled."""

    counted: list[int]
    left_out: int
    said: Scores
    earned: Scores


def selection_quality(criterion: Runs, returns: Runs, k: int = 3) -> Quality:
    """Measure how a criterion agrees with returns; for each configuration both hold one number a run, in equal order.

    More of the criterion is better. A configuration counts with the interquartile mean over those of its runs that have
    both numbers; one without any is left out. Intervals are 95% bootstrap percentiles over the runs of each
    configuration; there is none as soon as one of them has a single run, and no estimate from fewer than three
    configurations.
    """
    sample = _sampled(criterion, returns)
    if sample is None:
        nothing = Estimate(np.nan, np.nan, np.nan, 0, len(criterion))
        return Quality(nothing, nothing, None, nothing)
    n, left_out = len(sample.counted), sample.left_out
    correlation, regret, at_k = (
        _estimate(values, n, left_out)
        for values in (
            _correlation(sample.said, sample.earned),
            _regret(sample.said, sample.earned, 1),
            _regret(sample.said, sample.earned, k),
        )
    )
    return Quality(correlation, regret, sample.counted[int(sample.said[0].argmax())], at_k)


def pooled_quality(tables: Sequence[tuple[Runs, Runs]], k: int = 3) -> Quality:
    """Measure a criterion over several data sets: the means of ρ and of regrets as shares of the range of returns.

    Each table holds a criterion and returns, as in `selection_quality`. The regret on a data set is divided by the
    difference of its best and its worst configuration, because returns on other data have another scale. Intervals
    resample the runs of every data set; `n` counts data sets.
    """
    samples = [sample for table in tables if (sample := _sampled(*table)) is not None]
    left_out = len(tables) - len(samples)
    if not samples:
        nothing = Estimate(np.nan, np.nan, np.nan, 0, left_out)
        return Quality(nothing, nothing, None, nothing)
    rows = min(len(sample.said) for sample in samples)  # one, as soon as one of them has no resamples

    def over_tables(measure: Callable[[Scores, Scores], NDArray[np.float64]]) -> Estimate:
        values = np.stack([measure(sample.said[:rows], sample.earned[:rows]) for sample in samples])
        return _estimate(_mean_of_finite(values), len(samples), left_out)

    return Quality(
        over_tables(_correlation),
        over_tables(lambda said, earned: _regret(said, earned, 1) / _range(earned)),
        None,
        over_tables(lambda said, earned: _regret(said, earned, k) / _range(earned)),
    )


def mean_rank(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the mean place of each configuration over criteria, [configurations] of [criteria, configurations].

    More of every criterion is better, and the first place is 1. Ties share their places; what a criterion says nothing
    of comes last there, and a criterion that says nothing at all does not count.
    """
    given = np.asarray(scores, dtype=np.float64)
    known = given[np.isfinite(given).any(axis=1)]
    if not len(known):
        return np.full(given.shape[1], np.nan)
    worst_last = np.where(np.isnan(known), -np.inf, known)
    return np.asarray(scipy.stats.rankdata(-worst_last, axis=1).mean(axis=0))


def _sampled(criterion: Runs, returns: Runs) -> _Sample | None:
    """Return what configurations have, resampled over their runs; None where too few have both numbers."""
    pairs = [np.asarray([one, two], dtype=np.float64).T for one, two in zip(criterion, returns, strict=True)]
    pairs = [pair[np.isfinite(pair).all(axis=1)] for pair in pairs]
    counted = [place for place, pair in enumerate(pairs) if len(pair)]
    kept = [pairs[place] for place in counted]
    if len(kept) < FEWEST:
        return None
    said, earned = (np.array([[iqm(pair[:, column]) for pair in kept]]) for column in (0, 1))
    if min(map(len, kept)) > 1:
        rng = np.random.default_rng(0)
        again = [pair[rng.integers(len(pair), size=(RESAMPLES, len(pair)))] for pair in kept]
        drawn = [np.stack([iqm(pair[:, :, column], axis=1) for pair in again], axis=1) for column in (0, 1)]
        said, earned = np.concatenate([said, drawn[0]]), np.concatenate([earned, drawn[1]])
    return _Sample(counted, len(pairs) - len(kept), said, earned)


def _estimate(values: NDArray[np.float64], n: int, left_out: int) -> Estimate:
    """Return the first value with the percentiles of the others."""
    value, low, high = float(values[0]), np.nan, np.nan
    if np.isfinite(values[1:]).any():
        tails = 100 * (1 - CONFIDENCE) / 2
        low, high = np.nanpercentile(values[1:], [tails, 100 - tails])
        low, high = min(low, value), max(high, value)
    return Estimate(value, float(low), float(high), n, left_out)


def _correlation(said: Scores, earned: Scores) -> NDArray[np.float64]:
    """Return Spearman's ρ of each resample; NaN where all configurations are level."""
    ranks = [scipy.stats.rankdata(values, axis=1) for values in (said, earned)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))  # type: ignore[no-any-return]


def _regret(said: Scores, earned: Scores, k: int) -> NDArray[np.float64]:
    """Return what the best of the k first configurations lacks; of equal ones the first counts."""
    first = np.argsort(-said, axis=1, kind="stable")[:, :k]
    picked = np.take_along_axis(earned, first, axis=1).max(axis=1)
    return earned.max(axis=1) - picked  # type: ignore[no-any-return]


def _range(earned: Scores) -> NDArray[np.float64]:
    """Return the difference of the best and the worst configuration; 1 where there is none, and no regret either."""
    width = earned.max(axis=1) - earned.min(axis=1)
    return np.where(width > 0, width, 1.0)


def _mean_of_finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over data sets without those that are NaN, [resamples] of [data sets, resamples]."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(0) / known.sum(0)  # type: ignore[no-any-return]
