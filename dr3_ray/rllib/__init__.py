"""RLlib's shell around the training core: module, learner, algorithms. No mathematics here.

Every algorithm of the registry has a config and an Algorithm here, such as `DR3CQLConfig` and `DR3CQL`.
"""

from typing import Any

from dr3_ray.rllib import algorithms
from dr3_ray.rllib.algorithms import config_for, register_algorithms
from dr3_ray.rllib.config import OfflineConfig
from dr3_ray.rllib.drop_in import DQNWithFeatures, SACWithFeatures, penultimate, with_dr3_learner
from dr3_ray.rllib.reuse import Reusable

__all__ = [
    "DQNWithFeatures",
    "OfflineConfig",
    "Reusable",
    "SACWithFeatures",
    "config_for",
    "penultimate",
    "register_algorithms",
    "with_dr3_learner",
]


def __getattr__(name: str) -> Any:
    return getattr(algorithms, name)
