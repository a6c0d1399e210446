"""Is one setting better than another?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy  # which loads its parts when they are asked for
from numpy.typing import NDArray

from dr3_ray.stats.bootstrap import CONFIDENCE, Estimate


def paired_differences(treated: Mapping[Any, float], baseline: Mapping[Any, float]) -> tuple[NDArray[np.float64], int]:
    """Return the differences of treated and baseline runs with the same key, [n] in order of size.

    The second number counts the keys of either side without a finite pair.
    """
    keys = treated.keys() | baseline.keys()
    pairs = np.array([(treated.get(key, np.nan), baseline.get(key, np.nan)) for key in keys]).reshape(-1, 2)
    differences = np.sort(np.subtract(*pairs[np.isfinite(pairs).all(axis=1)].T))
    return differences, len(keys) - len(differences)


def probability_of_improvement(treated: Mapping[Any, float], baseline: Mapping[Any, float]) -> Estimate:
    """Estimate the probability that a treated run beats the baseline run with the same key, such as `(data set, seed)`.

    A tie counts half. Only the order within a pair matters, so pairs from several data sets may be pooled whatever the
    scale of their returns. The interval is the exact binomial one (Clopper and Pearson 1934): a bootstrap of three
    wins out of three would claim certainty. `n` counts pairs, `left_out` the keys of either side without a finite pair.
    """
    differences, left_out = paired_differences(treated, baseline)
    n = len(differences)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, left_out)
    wins = float(((1 + np.sign(differences)) / 2).sum())
    tail = (1 - CONFIDENCE) / 2
    low = float(scipy.special.betaincinv(wins, n - wins + 1, tail)) if wins > 0 else 0.0
    high = float(scipy.special.betaincinv(wins + 1, n - wins, 1 - tail)) if wins < n else 1.0
    return Estimate(wins / n, low, high, n, left_out)


def paired_difference(treated: Mapping[Any, float], baseline: Mapping[Any, float], comparisons: int = 1) -> Estimate:
    """Return the mean difference of treated and baseline runs with the same key, with Student's t interval.

    The interval has 1 − 0.05 / `comparisons` (Bonferroni), so that of several comparisons made together one in twenty
    has an interval that leaves out the truth. Two pairs have an interval, of little use; one pair has none. `n` counts
    pairs, `left_out` the keys of either side without a finite pair.
    """
    differences, left_out = paired_differences(treated, baseline)
    n = len(differences)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, left_out)
    value = float(differences.mean())
    spread = float(differences.std(ddof=1)) / np.sqrt(n) if n > 1 else np.nan
    half = spread * float(scipy.special.stdtrit(n - 1, 1 - (1 - CONFIDENCE) / 2 / comparisons)) if n > 1 else np.nan
    return Estimate(value, value - half, value + half, n, left_out)
