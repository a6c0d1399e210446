"""Tuning online as a bandit, where the answers are known."""

import numpy as np
import pytest

from dr3_ray.stats import tuning_curve

SURE = [[1.0, 1.0], [2.0, 2.0], [6.0, 6.0]]


def test_without_noise_every_arm_once_finds_the_best_one() -> None:
    """One pull chooses what it pulled: the mean of three. Two leave out one: (2 + 6 + 6) / 3. Three find the best."""
    found = tuning_curve(SURE, 6)
    assert found.value[0] == pytest.approx(3, abs=0.4) and found.value[1] == pytest.approx(14 / 3, abs=0.4)
    assert found.value[2:].tolist() == [6] * 4 and found.n.tolist() == [3] * 6
    assert (found.low[0], found.high[0]) == (1, 6)


def test_pulls_at_random_miss_the_best_as_often_as_they_do() -> None:
    """Three pulls of three arms leave the best one out with probability (2 / 3)³."""
    missed = (2 / 3) ** 3
    value = tuning_curve(SURE, 3, "random").value[2]
    assert 6 - 5 * missed < value < 6 - 4 * missed + 0.3
    assert value < tuning_curve(SURE, 3).value[2]


def test_noise_costs_pulls_and_ucb_gets_there() -> None:
    rng = np.random.default_rng(0)
    noisy = [(mean + rng.normal(0, 1, 50)).tolist() for mean in (0.0, 0.1, 1.0)]
    found = tuning_curve(noisy, 100).value
    best = np.mean(noisy[2])
    assert found[2] < best - 0.1 and found[-1] > best - 0.05


def test_what_is_not_finite_is_no_return() -> None:
    assert np.isnan(tuning_curve([[np.nan], []], 2).value).all()
    assert tuning_curve([[np.nan, 3.0], [np.inf]], 2).value.tolist() == [3, 3]
