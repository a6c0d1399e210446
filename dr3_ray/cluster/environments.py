"""Environments by name in every process of a Ray job, also those that a script has registered."""

import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from dr3_ray.errors import UserError, first_line
from dr3_ray.evaluation.environments import GYMNASIUM, make_environment, module_of_class
from dr3_ray.evaluation.turns import being_made

RAYS_REGISTRY = "ray.tune.registry"  # imported where it is needed: the driver of a dry run does without Ray


class Published:
    """A maker of the environment of a name, with the specification that a script gave Gymnasium."""

    def __init__(self, name: str, spec: EnvSpec | None):
        # as bytes, because to unpickle a class in the process that has it changes that class
        self.name, self.pickled = name, spec and cloudpickle.dumps(spec)

    def __call__(self, env_config: dict[str, Any]) -> gym.Env[Any, Any]:
        """Make a new environment from `env_config`.

        Raises:
            UserError: it cannot be made.
        """
        spec = specification(self.name) or (self.pickled and cloudpickle.loads(self.pickled))
        return make_environment(self.name, spec, **env_config)


def publish(name: Any) -> None:
    """Make an environment's name known to all workers, unless it is known through `register_env`.

    Gymnasium's registry belongs to one process, so what a script registers there travels as a specification.
    """
    if not isinstance(name, str):
        return
    known, spec = registered(name), specification(name)
    if known is None and spec is None and _is_class_path(name):
        return  # RLlib imports it
    made = Published(name, spec)
    if known is None or (isinstance(known, Published) and made.pickled and made.pickled != known.pickled):
        from ray.tune.registry import register_env

        register_env(name, made)


def _is_class_path(name: str) -> bool:
    """Return whether a name is that of something in a module that is installed; a package is imported for that."""
    with suppress(ImportError, ValueError):  # no package, no module
        return (module := module_of_class(name)) is not None and find_spec(module) is not None
    return False


def make_known(name: str) -> gym.Env[Any, Any]:
    """Make the environment of a name that this script has registered with Ray or Gymnasium, or that is installed.

    Raises:
        UserError: there is none of that name, or it cannot be made.
    """
    made_by = registered(name)
    if made_by is None or isinstance(made_by, Published):
        return make_environment(name)
    from ray.rllib.env.env_context import EnvContext

    try:
        with being_made(f"environment {name!r}"):
            made: gym.Env[Any, Any] = made_by(EnvContext({}, worker_index=0))
    except Exception as error:  # of whoever wrote it
        raise UserError(f"environment {name!r} cannot be made: {first_line(error)}") from error
    return made


def registered(name: str) -> Any:
    """Return what `register_env` was given for this name, here or in the job's script; None: nothing."""
    if RAYS_REGISTRY not in sys.modules:
        return None
    from ray.tune.registry import ENV_CREATOR

    from dr3_ray.compat.ray import registered as kept_by_ray

    return kept_by_ray(ENV_CREATOR, name)


def specification(name: str) -> EnvSpec | None:
    """Return Gymnasium's specification of a name in this process, without the import of a module."""
    return gym.registry.get(name.removeprefix(GYMNASIUM))
