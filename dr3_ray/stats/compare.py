"""Is one setting better than another?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy  # which loads its parts when they are asked for

from dr3_ray.stats.bootstrap import CONFIDENCE, Estimate


def probability_of_improvement(treated: Mapping[Any, float], baseline: Mapping[Any, float]) -> Estimate:
    """Probability that a treated run beats the baseline run with the same key, such as `(data set, seed)`.

    A tie counts half. Only the order within a pair matters, so pairs from several data sets may be pooled whatever the
    scale of their returns. The interval is the exact binomial one (Clopper and Pearson 1934): a bootstrap of three
    wins out of three would claim certainty. `n` counts pairs, `left_out` the keys of either side without a finite pair.
    """
    keys = treated.keys() | baseline.keys()
    pairs = np.array([(treated.get(key, np.nan), baseline.get(key, np.nan)) for key in keys]).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    n = len(pairs)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, len(keys))
    wins = float(((1 + np.sign(pairs[:, 0] - pairs[:, 1])) / 2).sum())
    tail = (1 - CONFIDENCE) / 2
    low = float(scipy.stats.beta.ppf(tail, wins, n - wins + 1)) if wins > 0 else 0.0
    high = float(scipy.stats.beta.ppf(1 - tail, wins + 1, n - wins)) if wins < n else 1.0
    return Estimate(wins / n, low, high, n, len(keys) - n)
