"""RLlib's shell around the training core: module, learner, algorithms. No mathematics here."""

from dr3_ray.rllib.algorithms import (
    BC,
    DR3CQL,
    DR3DQN,
    DR3IQL,
    DR3REM,
    DR3SARSA,
    BCConfig,
    DR3CQLConfig,
    DR3DQNConfig,
    DR3IQLConfig,
    DR3REMConfig,
    DR3SARSAConfig,
    config_for,
    register_algorithms,
)
from dr3_ray.rllib.config import OfflineConfig

__all__ = [
    "BC",
    "DR3CQL",
    "DR3DQN",
    "DR3IQL",
    "DR3REM",
    "DR3SARSA",
    "BCConfig",
    "DR3CQLConfig",
    "DR3DQNConfig",
    "DR3IQLConfig",
    "DR3REMConfig",
    "DR3SARSAConfig",
    "OfflineConfig",
    "config_for",
    "register_algorithms",
]
