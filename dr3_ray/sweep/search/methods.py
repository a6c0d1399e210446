"""Name -> who proposes configurations: a sampler of Optuna's, imported on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class SearchMethod(NamedTuple):
    """A method of searching."""

    sampler: Callable[[int, int], BaseSampler]
    """Returns the sampler of a search of so many trials, with this seed."""
    needs_all: bool = False
    """Whether it no longer learns of an option that a single scored trial is without."""


def tpe(trials: int, seed: int) -> BaseSampler:
    """Return tree-structured Parzen estimators."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def chance(trials: int, seed: int) -> BaseSampler:
    """Return a sampler that learns nothing."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def gaussian_process(trials: int, seed: int) -> BaseSampler:
    """Return a Gaussian process."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed)


def nsga2(trials: int, seed: int) -> BaseSampler:
    """Return NSGA-II; Optuna's 50 a generation would leave many searches in their first one, which is drawn."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(population_size=max(4, min(50, trials // 5)), seed=seed)


METHODS = {
    "tpe": SearchMethod(tpe),
    "random": SearchMethod(chance),
    "gp": SearchMethod(gaussian_process, needs_all=True),
    "nsga2": SearchMethod(nsga2, needs_all=True),
}
