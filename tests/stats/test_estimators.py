"""Estimators against values worked by hand and the properties that define them."""

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from dr3_ray.stats import iqm, mean, median, training_average

# Whole numbers, so that sums are exact and invariances hold to the bit.
values = st.lists(st.integers(-1000, 1000).map(float), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7], 7),
        ([1, 2, 6], 3),  # floor(3 / 4) = 0 are cut: the mean
        ([1, 2, 4, 100], 3),  # one at each end
        ([0, 1, 2, 3, 100], 2),
        ([-9, -9, 1, 2, 3, 6, 99, 99], 3),  # two at each end
    ],
)
def test_iqm_by_hand(scores, expected):
    assert iqm(scores) == expected


@given(values, st.randoms())
def test_iqm_is_the_mean_of_the_middle_in_any_order(scores, random):
    cut = len(scores) // 4
    shuffled = random.sample(scores, len(scores))
    assert iqm(shuffled) == pytest.approx(np.mean(sorted(scores)[cut : len(scores) - cut]))


@given(st.lists(st.lists(st.integers(-1000, 1000).map(float), min_size=7, max_size=7), min_size=1, max_size=30))
def test_iqm_is_what_scipy_calls_it(rows):
    for axis in (0, 1):
        np.testing.assert_allclose(iqm(rows, axis), scipy.stats.trim_mean(rows, 0.25, axis), rtol=1e-13)


@given(values, st.integers(-50, 50), st.integers(1, 9))
def test_iqm_moves_and_scales_with_the_values(scores, shift, scale):
    assert iqm(np.array(scores) * scale + shift) == pytest.approx(iqm(scores) * scale + shift)
    assert iqm(-np.array(scores)) == pytest.approx(-iqm(scores))


@given(st.lists(st.integers(-1000, 1000).map(float), min_size=4, max_size=30))
def test_iqm_ignores_how_extreme_the_extremes_are(scores):
    further = sorted(scores)
    further[0], further[-1] = further[0] - 1e6, further[-1] + 1e6
    assert iqm(further) == iqm(scores)


@pytest.mark.parametrize("estimator", [iqm, mean, median])
def test_estimators_reduce_the_axis_they_are_given(estimator):
    table = np.arange(40.0).reshape(8, 5) ** 2
    np.testing.assert_allclose(estimator(table, axis=0), [estimator(column) for column in table.T])
    np.testing.assert_allclose(estimator(table, axis=1), [estimator(row) for row in table])


def test_mean_and_median_by_hand():
    assert mean([1, 2, 6]) == 3
    assert median([1, 2, 6]) == 2


@pytest.mark.parametrize(
    ("steps", "curve", "expected"),
    [
        ([0, 10], [0, 4], 2),
        ([0, 10, 40], [0, 4, 4], (20 + 120) / 40),  # unevenly spaced
        ([0, 10, 20], [0, np.nan, 4], 2),  # not measured: bridged
        ([5], [3], 3),
        ([5, 6], [np.nan, 3], 3),
        ([0, 1], [1, np.inf], np.inf),
    ],
)
def test_training_average_by_hand(steps, curve, expected):
    assert training_average(steps, curve) == expected


def test_training_average_of_nothing_is_not_a_number():
    assert np.isnan(training_average([], []))
    assert np.isnan(training_average([1, 2], [np.nan, np.nan]))


@given(st.lists(st.integers(-100, 100).map(float), min_size=2, max_size=20), st.data())
def test_training_average_lies_within_the_curve_and_does_not_depend_on_the_unit_of_steps(curve, data):
    gaps = data.draw(st.lists(st.integers(1, 100), min_size=len(curve), max_size=len(curve)))
    steps = np.cumsum(gaps)
    average = training_average(steps, curve)
    assert min(curve) - 1e-9 <= average <= max(curve) + 1e-9
    assert training_average(steps * 1000 + 7, curve) == pytest.approx(average)
