"""Offline reinforcement learning with DR3, in sweeps.

Names are imported on first use: `import dr3_ray` loads neither torch nor ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dr3_ray.data import Dataset, load_dataset
    from dr3_ray.errors import UserError
    from dr3_ray.rllib import (
        BCConfig,
        DR3BRACConfig,
        DR3CQLConfig,
        DR3DQNConfig,
        DR3IQLConfig,
        DR3MCConfig,
        DR3QRCQLConfig,
        DR3QRDQNConfig,
        DR3ReBRACConfig,
        DR3REMConfig,
        DR3SARSAConfig,
        DR3TD3BCConfig,
        DR3TDConfig,
        config_for,
        register_algorithms,
        with_dr3_learner,
    )
    from dr3_ray.sweep.run import run_sweep
    from dr3_ray.sweep.spec import SweepSpec

__version__ = "0.1.0"

_HOME = {
    "BCConfig": "rllib",
    "DR3CQLConfig": "rllib",
    "DR3DQNConfig": "rllib",
    "DR3IQLConfig": "rllib",
    "DR3MCConfig": "rllib",
    "DR3QRCQLConfig": "rllib",
    "DR3QRDQNConfig": "rllib",
    "DR3REMConfig": "rllib",
    "DR3TD3BCConfig": "rllib",
    "DR3ReBRACConfig": "rllib",
    "DR3BRACConfig": "rllib",
    "DR3SARSAConfig": "rllib",
    "DR3TDConfig": "rllib",
    "Dataset": "data",
    "UserError": "errors",
    "config_for": "rllib",
    "load_dataset": "data",
    "register_algorithms": "rllib",
    "run_sweep": "sweep.run",
    "SweepSpec": "sweep.spec",
    "with_dr3_learner": "rllib",
}

__all__ = [
    "BCConfig",
    "DR3BRACConfig",
    "DR3CQLConfig",
    "DR3DQNConfig",
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
    "SweepSpec",
    "UserError",
    "config_for",
    "load_dataset",
    "register_algorithms",
    "run_sweep",
    "with_dr3_learner",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
