"""One config and one Algorithm for every name in the registry: `DR3CQLConfig` and `DR3CQL` for DR3-CQL."""

from typing import Any

from ray.tune.registry import register_trainable

from dr3_ray.algorithms.registry import ALGORITHMS, TITLES, kinds_of
from dr3_ray.rllib.algorithm import OfflineAlgorithm
from dr3_ray.rllib.config import CLASSES, OfflineConfig


def _classes_of(name: str) -> dict[str, type]:
    """Return the config and the Algorithm of a name by their own names, under which pickles find them here."""
    about = {"__doc__": f"{TITLES[name]}, {' and '.join(ALGORITHMS[name])} actions.", "__module__": __name__}
    called = name.replace("-", "")
    config = type(f"{called}Config", (OfflineConfig,), {**about, "algorithm_name": name})
    algorithm = type(called, (OfflineAlgorithm,), {**about, "config_class": config})
    CLASSES[name] = algorithm
    return {config.__name__: config, called: algorithm}


for _name in ALGORITHMS:
    globals().update(_classes_of(_name))


def __getattr__(name: str) -> Any:  # for type checkers, which do not see the classes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def config_for(name: str) -> OfflineConfig:
    """Return a fresh config of the algorithm called `name`."""
    kinds_of(name)  # fails with the list of names where there is none
    config: OfflineConfig = CLASSES[name].get_default_config()
    return config


def register_algorithms() -> None:
    """Make the names known to Ray Tune: `tune.Tuner("DR3-CQL", param_space=…)`, in worker processes too."""
    for name, algorithm in CLASSES.items():
        register_trainable(name, algorithm)
