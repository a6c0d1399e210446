"""Rank correlation and regret of a criterion, against hand-worked numbers and scipy."""

import numpy as np
import pytest
from scipy import stats

from dr3_ray.stats import selection_quality

RETURNS = [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0], [8.0, 8.0]]


def test_the_same_order_has_no_regret_and_the_opposite_one_the_most() -> None:
    same = selection_quality(RETURNS, RETURNS)
    assert same.correlation.value == pytest.approx(1) and same.regret.value == 0 and same.picks == 3
    opposite = selection_quality([[-x for x in row] for row in RETURNS], RETURNS)
    assert opposite.correlation.value == pytest.approx(-1) and opposite.regret.value == 7 and opposite.picks == 0
    assert (same.regret.low, same.regret.high, same.correlation.n) == (0, 0, 4)


def test_one_exchange_by_hand() -> None:
    """Ranks 1 2 4 3: ρ = 1 − 6·2 / (4·15) = 0.8, and the third is picked: 8 − 4."""
    found = selection_quality([[1, 1], [2, 2], [9, 9], [3, 3]], RETURNS)
    assert found.correlation.value == pytest.approx(0.8) and found.regret.value == 4


def test_ties_and_noise_agree_with_scipy_and_lie_in_their_interval() -> None:
    rng = np.random.default_rng(0)
    said, earned = rng.integers(0, 3, (2, 6, 3)).astype(float)
    found = selection_quality(said.tolist(), earned.tolist())
    expected = stats.spearmanr(said.mean(1), earned.mean(1)).statistic
    assert found.correlation.value == pytest.approx(expected)
    assert found.correlation.low <= found.correlation.value <= found.correlation.high
    assert 0 <= found.regret.low <= found.regret.value <= found.regret.high


def test_runs_without_a_number_do_not_count_and_one_run_has_no_interval() -> None:
    said = [[1.0, np.nan], [2.0, 2.0], [3.0, 3.0], [np.nan, np.nan], [9.0, 9.0]]
    found = selection_quality(said, [[1.0, 5.0], [2.0, 2.0], [3.0, 3.0], [9.0, 9.0], [4.0, np.inf]])
    assert (found.correlation.value, found.correlation.n, found.correlation.left_out) == (pytest.approx(1), 4, 1)
    assert not found.correlation.has_interval and found.picks == 4
    assert selection_quality(said[:2], RETURNS[:2]).picks is None
