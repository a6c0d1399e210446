"""Estimates over runs and how certain they are."""

from dr3_ray.stats.bootstrap import Band, Estimate, bootstrap_band, bootstrap_estimate
from dr3_ray.stats.compare import paired_difference, paired_differences, probability_of_improvement
from dr3_ray.stats.estimators import iqm, mean, median, training_average
from dr3_ray.stats.selection import Quality, selection_quality

__all__ = [
    "Band",
    "Estimate",
    "Quality",
    "bootstrap_band",
    "bootstrap_estimate",
    "iqm",
    "mean",
    "median",
    "paired_difference",
    "paired_differences",
    "probability_of_improvement",
    "selection_quality",
    "training_average",
]
