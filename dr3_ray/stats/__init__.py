"""Estimates over runs and how certain they are."""

from dr3_ray.stats.bootstrap import Band, Estimate, bootstrap_band, bootstrap_estimate
from dr3_ray.stats.compare import probability_of_improvement
from dr3_ray.stats.estimators import iqm, mean, median, training_average

__all__ = [
    "Band",
    "Estimate",
    "bootstrap_band",
    "bootstrap_estimate",
    "iqm",
    "mean",
    "median",
    "probability_of_improvement",
    "training_average",
]
