"""Probability of improvement against counting by hand and the exact binomial test."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel

from dr3_ray.stats import paired_difference, probability_of_improvement

returns = st.dictionaries(st.integers(0, 9), st.integers(-3, 3).map(float) | st.just(np.nan))


def test_wins_are_counted_over_the_pairs():
    treated = {0: 5.0, 1: 2.0, 2: 9.0, 3: 1.0}
    baseline = {0: 4.0, 1: 3.0, 2: 1.0, 3: 0.0}
    result = probability_of_improvement(treated, baseline)
    exact = binomtest(3, 4).proportion_ci(method="exact")
    assert result.value == 0.75
    assert (result.low, result.high) == pytest.approx((exact.low, exact.high))
    assert (result.n, result.left_out) == (4, 0)


def test_the_pairing_decides_and_not_the_averages():
    # Better on average, worse on two seeds out of three.
    assert probability_of_improvement({0: 90.0, 1: 1.0, 2: 1.0}, {0: 0.0, 1: 2.0, 2: 2.0}).value == pytest.approx(1 / 3)


def test_three_wins_of_three_are_no_certainty():
    result = probability_of_improvement({0: 1.0, 1: 1.0, 2: 1.0}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert (result.value, result.high) == (1, 1)
    assert result.low == pytest.approx(0.025 ** (1 / 3))


def test_ties_count_half():
    assert probability_of_improvement({0: 1.0, 1: 1.0}, {0: 1.0, 1: 0.0}).value == 0.75
    assert probability_of_improvement({0: 1.0}, {0: 1.0}).value == 0.5


def test_pairs_of_several_data_sets_may_be_pooled():
    treated = {("a", 0): 1.0, ("b", 0): 1000.0}
    assert probability_of_improvement(treated, {("a", 0): 0.0, ("b", 0): 2000.0}).value == 0.5


def test_keys_without_a_finite_pair_are_left_out_and_counted():
    result = probability_of_improvement({0: 1.0, 1: np.nan, 2: 4.0}, {0: 0.0, 1: 0.0, 3: 1.0})
    assert (result.value, result.n, result.left_out) == (1, 1, 3)
    nothing = probability_of_improvement({}, {0: 1.0})
    assert np.isnan(nothing.value)
    assert (nothing.n, nothing.left_out, nothing.has_interval) == (0, 1, False)


@given(returns, returns)
def test_swapping_the_sides_mirrors_the_result(treated, baseline):
    there, back = probability_of_improvement(treated, baseline), probability_of_improvement(baseline, treated)
    np.testing.assert_allclose(
        [there.value, there.low, there.high], [1 - back.value, 1 - back.high, 1 - back.low], atol=1e-12
    )
    if there.n:
        assert 0 <= there.low <= there.value <= there.high <= 1


def test_a_paired_difference_has_the_interval_of_the_paired_t_test():
    treated, baseline = {1: 5.0, 2: 7.0, 3: 6.5, 4: float("nan")}, {1: 4.0, 2: 6.5, 3: 4.0, 5: 1.0}
    found = paired_difference(treated, baseline)
    test = ttest_rel([5.0, 7.0, 6.5], [4.0, 6.5, 4.0]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((test.low, test.high))
    assert (found.value, found.n, found.left_out) == (pytest.approx(4 / 3), 3, 2)
    wide = ttest_rel([5.0, 7.0, 6.5], [4.0, 6.5, 4.0]).confidence_interval(0.99)
    assert paired_difference(treated, baseline, comparisons=5).low == pytest.approx(wide.low)
    with warnings.catch_warnings(action="error"):
        assert not paired_difference({1: 2.0}, {1: 1.0}).has_interval
    assert paired_difference({}, {1: 1.0}).n == 0
