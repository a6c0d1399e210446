"""Rank correlation and regret of a criterion, against hand-worked numbers and scipy."""

import numpy as np
import pytest
from scipy import stats

from dr3_ray.stats import mean_rank, pooled_quality, selection_quality

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


def test_regret_at_k_is_that_of_the_best_of_the_first_k() -> None:
    """The criterion's order is 3, 1, 2, 4: regrets 8 − 4, 8 − 4, 8 − 4 and, with all four, nothing."""
    said = [[3, 3], [2, 2], [9, 9], [1, 1]]
    assert [selection_quality(said, RETURNS, k).regret_at_k.value for k in (1, 2, 3, 4)] == [4, 4, 4, 0]
    better = [[3, 3], [2, 2], [9, 9], [8, 8]]
    assert [selection_quality(better, RETURNS, k).regret_at_k.value for k in (1, 2)] == [4, 0]


def test_over_data_sets_regret_is_a_share_and_scales_do_not_count() -> None:
    """On the first the third is picked, (8 − 4) / 7; on the second, a hundred times as large, the best."""
    large = [[100 * each for each in row] for row in RETURNS]
    found = pooled_quality([([[1, 1], [2, 2], [9, 9], [3, 3]], RETURNS), (large, large)])
    assert found.regret.value == pytest.approx((4 / 7 + 0) / 2)
    assert found.correlation.value == pytest.approx((0.8 + 1) / 2)
    assert (found.correlation.n, found.correlation.left_out, found.picks) == (2, 0, None)
    assert found.regret.low <= found.regret.value <= found.regret.high
    few = pooled_quality([(RETURNS[:2], RETURNS[:2])])
    assert (few.regret.n, few.regret.left_out) == (0, 1)


def test_mean_rank_by_hand() -> None:
    """Places 1 2 3 and 1.5 3 1.5. An unknown value comes last; a criterion without values does not count."""
    nan = np.nan
    assert mean_rank([[9, 5, 1], [2, 1, 2], [nan, nan, nan]]).tolist() == [1.25, 2.5, 2.25]
    assert mean_rank([[9, nan, 1]]).tolist() == [1, 3, 2]
    assert np.isnan(mean_rank([[nan, nan]])).all()
