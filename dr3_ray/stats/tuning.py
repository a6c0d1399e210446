"""What tuning online costs: the return of the configuration that rollouts choose, by how many were played.

The protocol of Jackson et al. (arXiv 2504.11453, unifloral): a bandit pulls configurations, a pull is a return drawn
from those that were measured of it, and after every pull the one with the highest mean so far is the choice, which is
worth its true mean. UCB1 (Auer et al. 2002) with their weight 2; returns are brought to [0, 1] for it.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dr3_ray.stats.bootstrap import CONFIDENCE, Band
from dr3_ray.stats.selection import Runs

EXPLORATION = 2.0  # α of √(α ln t / n): their `ucb_alpha`
REPEATS = 500  # attempts at tuning that are averaged: the mean has a standard error of a 22nd of their spread
Strategy = Literal["ucb", "random"]


def tuning_curve(returns: Runs, pulls: int, strategy: Strategy = "ucb", seed: int = 0) -> Band:
    """Return the mean return of the configuration that is chosen after 1, 2, … pulls, each [pulls].

    `returns` holds what was measured of each configuration, whose mean is what it is worth. `low` and `high` are where
    95% of the attempts end, `n` counts configurations. `strategy` `random` pulls any of them each time.
    NaN without a finite return.
    """
    arms = [np.asarray(values, dtype=np.float64) for values in returns]
    arms = [arm[np.isfinite(arm)] for arm in arms]
    arms = [arm for arm in arms if len(arm)]
    if not arms:
        nothing = np.full(pulls, np.nan)
        return Band(nothing, nothing, nothing, np.zeros(pulls, np.int64))
    worth = np.array([arm.mean() for arm in arms])
    chosen = worth[_choices(arms, pulls, strategy, np.random.default_rng(seed))]
    tails = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(chosen, [tails, 100 - tails], axis=0)
    return Band(chosen.mean(0), low, high, np.full(pulls, len(arms), np.int64))


def _choices(
    arms: list[NDArray[np.float64]], pulls: int, strategy: Strategy, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the arm with the highest mean after each pull, [repeats, pulls]."""
    counted = np.array([len(arm) for arm in arms])
    table = np.zeros((len(arms), counted.max()))
    for place, values in enumerate(arms):
        table[place, : len(values)] = values
    lowest, highest = min(arm.min() for arm in arms), max(arm.max() for arm in arms)
    table = (table - lowest) / ((highest - lowest) or 1.0)
    every, counts, sums = np.arange(REPEATS), np.zeros((REPEATS, len(arms))), np.zeros((REPEATS, len(arms)))
    chosen = np.zeros((REPEATS, pulls), np.int64)
    for pull in range(pulls):
        order = rng.random(counts.shape)  # which breaks ties, and is the strategy `random`
        means = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
        if strategy == "ucb":
            bonus = np.sqrt(EXPLORATION * np.log(pull + 1) / np.maximum(counts, 1))
            bound = np.where(counts > 0, means + bonus, np.inf)
            order = np.where(bound == bound.max(1, keepdims=True), order, -1.0)
        arm = order.argmax(1)
        sums[every, arm] += table[arm, rng.integers(counted[arm])]
        counts[every, arm] += 1
        means = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
        best = means == means.max(1, keepdims=True)
        chosen[:, pull] = np.where(best, rng.random(counts.shape), -1.0).argmax(1)
    return chosen
