"""Offline reinforcement learning with DR3, in sweeps.

Names are imported on first use: `import dr3_ray` loads neither torch nor ray. Every algorithm has its config here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the configs are made from the registry: these lines tell type checkers and editors of them
    from dr3_ray.algorithms.registry import find
    from dr3_ray.data import Dataset, load_dataset
    from dr3_ray.errors import UserError
    from dr3_ray.policies.loading import load_policy
    from dr3_ray.policies.policy import Policy
    from dr3_ray.report.run import run_sweep
    from dr3_ray.report.sweep import Sweep, load_run
    from dr3_ray.rllib import OfflineConfig as BCConfig
    from dr3_ray.rllib import OfflineConfig as DR3AWACConfig
    from dr3_ray.rllib import OfflineConfig as DR3BRACConfig
    from dr3_ray.rllib import OfflineConfig as DR3CQLConfig
    from dr3_ray.rllib import OfflineConfig as DR3CalQLConfig
    from dr3_ray.rllib import OfflineConfig as DR3DQNConfig
    from dr3_ray.rllib import OfflineConfig as DR3EDACConfig
    from dr3_ray.rllib import OfflineConfig as DR3FQLConfig
    from dr3_ray.rllib import OfflineConfig as DR3IQLConfig
    from dr3_ray.rllib import OfflineConfig as DR3MCConfig
    from dr3_ray.rllib import OfflineConfig as DR3QRCQLConfig
    from dr3_ray.rllib import OfflineConfig as DR3QRDQNConfig
    from dr3_ray.rllib import OfflineConfig as DR3REMConfig
    from dr3_ray.rllib import OfflineConfig as DR3ReBRACConfig
    from dr3_ray.rllib import OfflineConfig as DR3SARSAConfig
    from dr3_ray.rllib import OfflineConfig as DR3TD3BCConfig
    from dr3_ray.rllib import OfflineConfig as DR3TDConfig
    from dr3_ray.rllib import config_for, register_algorithms, with_dr3_learner
    from dr3_ray.sweep.spec.spec import SweepSpec
    from dr3_ray.training.member import Member
    from dr3_ray.training.population import Population

__version__ = "0.1.0"

_HOME = {
    "Dataset": "data",
    "Member": "training.member",
    "Policy": "policies.policy",
    "Population": "training.population",
    "Sweep": "report.sweep",
    "SweepSpec": "sweep.spec.spec",
    "UserError": "errors",
    "config_for": "rllib",
    "find": "algorithms.registry",
    "load_dataset": "data",
    "load_policy": "policies.loading",
    "load_run": "report.sweep",
    "register_algorithms": "rllib",
    "run_sweep": "report.run",
    "with_dr3_learner": "rllib",
}

__all__ = [
    "BCConfig",
    "DR3AWACConfig",
    "DR3BRACConfig",
    "DR3CQLConfig",
    "DR3CalQLConfig",
    "DR3DQNConfig",
    "DR3EDACConfig",
    "DR3FQLConfig",
    "DR3IQLConfig",
    "DR3MCConfig",
    "DR3QRCQLConfig",
    "DR3QRDQNConfig",
    "DR3REMConfig",
    "DR3ReBRACConfig",
    "DR3SARSAConfig",
    "DR3TD3BCConfig",
    "DR3TDConfig",
    "Dataset",
    "Member",
    "Policy",
    "Population",
    "Sweep",
    "SweepSpec",
    "UserError",
    "config_for",
    "find",
    "load_dataset",
    "load_policy",
    "load_run",
    "register_algorithms",
    "run_sweep",
    "with_dr3_learner",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name, "rllib" if name.endswith("Config") else None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
