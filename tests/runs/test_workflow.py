"""The workflow of arXiv 2109.10813 on curves that are drawn by hand."""

import numpy as np

from dr3_ray.runs.workflow import Fit, fit_of

STEPS = np.arange(1, 11) * 100.0
FALLING = 1.0 / np.arange(1, 11)
RISING = np.arange(1.0, 11.0)
HILL = np.array([0, 2, 4, 6, 6, 5, 4, 3, 2, 1.0])


def test_mean_q_that_falls_from_its_peak_while_the_error_falls_is_overfit() -> None:
    peak = 500  # averaged over three: (6 + 6 + 5) / 3 is more than (4 + 6 + 6) / 3
    assert fit_of({"step": STEPS, "q_mean": HILL, "td_error": FALLING}) == Fit("overfit", peak)


def test_an_error_that_stays_is_underfit_and_so_is_a_gap() -> None:
    stays = np.linspace(1.0, 0.6, 10)
    assert fit_of({"step": STEPS, "q_mean": RISING, "td_error": stays}) == Fit("underfit", by="TD error")
    curves = {"step": STEPS, "q_mean": RISING, "td_error": FALLING, "cql_gap": stays}
    assert fit_of(curves) == Fit("underfit", by="CQL's gap")


def test_the_first_tenth_does_not_count_and_below_half_is_learned() -> None:
    """From 100 on: 1, …, 0.4; what was before the tenth of training, 50 times as much, is nothing to compare with."""
    falls = np.concatenate([[50.0] * 2, np.linspace(1.0, 0.4, 38)])
    steps = np.arange(1, 41) * 10.0
    assert fit_of({"step": steps, "q_mean": np.arange(40.0), "td_error": falls}) == Fit("undecided")


def test_few_or_no_numbers_decide_nothing() -> None:
    for n in (0, 3):
        assert fit_of({"step": STEPS[:n], "q_mean": HILL[:n], "td_error": np.ones(n)}) == Fit("undecided")
    nothing = np.full(10, np.nan)
    assert fit_of({"step": STEPS, "q_mean": nothing, "td_error": nothing, "cql_gap": nothing}) == Fit("undecided")
