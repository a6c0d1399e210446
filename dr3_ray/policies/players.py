"""Who plays while data are collected and learns nothing: a trained policy, or a function of the user's."""

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym

from dr3_ray.data.sampler import generator
from dr3_ray.errors import UserError, first_line
from dr3_ray.evaluation.online import Player
from dr3_ray.policies.loading import load_policy
from dr3_ray.policies.waypoints import WAYPOINTS, waypoints
from dr3_ray.runs.brought import run_here


def player_named(learner: str, settings: Mapping[str, Any], seed: int, trust: bool = False) -> Player:
    """Return the player that `waypoints`, a run, a checkpoint or `module:callable` names; a module is imported and run.

    Args:
        learner: of a run the best member's policy plays; a callable takes an observation and returns an action.
        settings: of a policy, `sample`: whether its actions are drawn from its distribution.
        seed: of these draws, and of those of `waypoints`.
        trust: read checkpoints of version 0.1 too, which are pickles: whoever made them can run code here.

    Raises:
        UserError: there is no such player, or it has no such setting.
    """
    if learner == WAYPOINTS:
        _no_settings(learner, settings)
        return waypoints(seed)
    path = run_here(learner, checkpoints=True)
    if path.is_dir():
        return _policy(learner, path.resolve(), settings, seed, trust)
    module, colon, name = learner.partition(":")
    if not (colon and all(map(str.isidentifier, (*module.split("."), *name.split("."))))):
        raise UserError(
            f"there is no learner {learner!r}: give dqn, sac, random, waypoints, the directory of a run or checkpoint, "
            "or module:callable"
        )
    _no_settings(learner, settings)
    function = _function(learner, module, name)
    file = getattr(sys.modules[module], "__file__", None)
    identity = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    return Player(learner, name.rpartition(".")[2], lambda environment, episode: function, identity=identity)


def _no_settings(learner: str, settings: Mapping[str, Any]) -> None:
    if settings:
        raise UserError(f"{learner} has no options here: leave out --set {', '.join(settings)}")


def _policy(learner: str, path: Path, settings: Mapping[str, Any], seed: int, trust: bool) -> Player:
    sample = settings.get("sample", False)
    if settings.keys() - {"sample"} or type(sample) is not bool:
        raise UserError(f"a trained policy has the option sample=true or sample=false alone, not {dict(settings)}")
    policy = load_policy(path, trust=trust)
    if sample and not hasattr(getattr(policy.networks, "actor", None), "sample"):
        raise UserError(f"{policy.spec.name} has a deterministic policy: leave out sample=true")

    def begin(environment: gym.Env[Any, Any], episode: int) -> Callable[[Any], Any]:
        """Draw from a stream of the episode's own."""
        return policy.in_environment(environment, sample, generator(seed, f"episode {episode}"))

    weights = hashlib.sha256()
    for values in policy.networks.state_dict().values():
        weights.update(values.numpy().tobytes())
    details = {"policy": policy.chosen or f"{policy.spec.name}, of a checkpoint", "sampled": str(sample).lower()}
    return Player(learner, path.name, begin, details, weights.hexdigest())


def _function(learner: str, module: str, name: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:  # as `python -m` has it
        sys.path.insert(0, here)
    try:
        function: Any = import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
    except Exception as error:  # of whoever wrote it
        raise UserError(f"{learner} cannot be imported: {first_line(error)}") from error
    if not callable(function):
        raise UserError(f"{learner} is a {type(function).__name__}: name a function of an observation")
    return function
