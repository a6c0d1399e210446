"""Bootstrap intervals against enumeration, closed forms and the properties they must have."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dr3_ray.stats import bootstrap_band, bootstrap_estimate, iqm, mean, median

numbers = st.floats(-1e6, 1e6, allow_nan=False)
any_number = numbers | st.sampled_from([np.nan, np.inf, -np.inf])


def test_three_runs_give_their_range():
    estimate = bootstrap_estimate([1.0, 2.0, 6.0])
    assert (estimate.value, estimate.low, estimate.high) == (3, 1, 6)
    assert (estimate.n, estimate.left_out) == (3, 0)


def test_agrees_with_the_enumeration_of_all_resamples():
    scores = [0.0, 1.0, 3.0, 7.0, 20.0]
    every = [iqm(resample) for resample in product(scores, repeat=5)]
    estimate = bootstrap_estimate(scores)
    low, high = np.percentile(every, [2.5, 97.5])
    assert estimate.low == pytest.approx(low, abs=0.35)
    assert estimate.high == pytest.approx(high, abs=0.7)


def test_agrees_with_the_normal_interval_of_a_mean_of_many():
    scores = np.random.default_rng(1).normal(10, 3, 400)
    estimate = bootstrap_estimate(scores, estimator=mean)
    half = 1.96 * scores.std() / 20
    assert estimate.low == pytest.approx(scores.mean() - half, abs=0.03)
    assert estimate.high == pytest.approx(scores.mean() + half, abs=0.03)


def test_strata_are_resampled_within_themselves():
    # Within each data set all runs agree, so the pooled mean is certain, however far apart the data sets are.
    estimate = bootstrap_estimate([0.0, 0.0], [100.0, 100.0], estimator=mean)
    assert (estimate.low, estimate.value, estimate.high) == (50, 50, 50)
    pooled = bootstrap_estimate([0.0, 0.0, 100.0, 100.0], estimator=mean)
    assert (pooled.low, pooled.high) == (0, 100)


def test_one_run_has_a_value_but_no_interval():
    estimate = bootstrap_estimate([4.0])
    assert estimate.value == 4
    assert estimate.n == 1
    assert not estimate.has_interval
    assert np.isnan(estimate.high)


def test_a_stratum_with_one_run_leaves_the_whole_without_an_interval():
    estimate = bootstrap_estimate([1.0, 3.0], [5.0], estimator=mean)
    assert estimate.value == 3
    assert not estimate.has_interval


def test_values_that_are_not_finite_are_left_out_and_counted():
    estimate = bootstrap_estimate([1.0, np.nan, 3.0, np.inf, -np.inf])
    assert (estimate.value, estimate.n, estimate.left_out) == (2, 2, 3)
    nothing = bootstrap_estimate([np.nan, np.inf])
    assert np.isnan(nothing.value)
    assert (nothing.n, nothing.left_out, nothing.has_interval) == (0, 2, False)
    assert bootstrap_estimate([]).n == bootstrap_estimate().n == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(any_number, max_size=12), st.randoms(), st.sampled_from([iqm, mean, median]))
def test_interval_contains_the_estimate_lies_in_the_range_and_ignores_order(scores, random, estimator):
    estimate = bootstrap_estimate(scores, estimator=estimator)
    shuffled = bootstrap_estimate(random.sample(scores, len(scores)), estimator=estimator)
    np.testing.assert_equal(
        (shuffled.value, shuffled.low, shuffled.high), (estimate.value, estimate.low, estimate.high)
    )
    finite = [score for score in scores if np.isfinite(score)]
    assert estimate.n + estimate.left_out == len(scores)
    assert estimate.has_interval == (len(finite) > 1)
    if estimate.has_interval:
        tolerance = 1e-9 * max(map(abs, finite))
        assert min(finite) - tolerance <= estimate.low <= estimate.value <= estimate.high <= max(finite) + tolerance


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(any_number, min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_band_is_the_estimate_at_each_step(curves):
    band = bootstrap_band(curves)
    for step in range(3):
        estimate = bootstrap_estimate([curve[step] for curve in curves])
        np.testing.assert_allclose(
            [band.value[step], band.low[step], band.high[step], band.n[step]],
            [estimate.value, estimate.low, estimate.high, estimate.n],
            rtol=1e-6,
        )


def test_a_band_over_no_steps_or_no_runs_is_empty():
    assert bootstrap_band(np.empty((3, 0))).value.shape == (0,)
    assert bootstrap_band(np.empty((0, 2))).n.tolist() == [0, 0]
