"""Estimates over runs and how certain they are."""

from dr3_ray.stats.bootstrap import Band, Estimate, bootstrap_band, bootstrap_estimate
from dr3_ray.stats.compare import paired_difference, paired_differences, probability_of_improvement
from dr3_ray.stats.estimators import iqm, mean, median, training_average
from dr3_ray.stats.selection import Quality, mean_rank, pooled_quality, selection_quality
from dr3_ray.stats.tuning import tuning_curve

__all__ = [
    "Band",
    "Estimate",
    "Quality",
    "bootstrap_band",
    "bootstrap_estimate",
    "iqm",
    "mean",
    "mean_rank",
    "median",
    "paired_difference",
    "paired_differences",
    "pooled_quality",
    "probability_of_improvement",
    "selection_quality",
    "training_average",
    "tuning_curve",
]
