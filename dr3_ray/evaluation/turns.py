"""Turns of an environment: what its code raises or returns amiss is told as the environment's, in one line."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from dr3_ray.errors import UserError, first_line

NOT_ITS_OWN = (UserError, MemoryError, gym.error.DependencyNotInstalled)
"""Errors that an environment passes on: of this package, of this machine's memory, of a package that is missing."""


class Turn(NamedTuple):
    """What an environment returns for an action, with a reward and ends that are plain values."""

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


def begin(environment: gym.Env[Any, Any], where: str, seed: int) -> tuple[Any, dict[str, Any]]:
    """Return the first observation of an episode, and what is told beside it.

    Raises:
        UserError: the environment, which lies `where`, raises something, or returns something else.
    """
    observation, info = _answer(where, "reset", 2, "an observation and a dict", lambda: environment.reset(seed=seed))
    return observation, info


def play(environment: gym.Env[Any, Any], where: str, action: Any) -> Turn:
    """Play an action, and return the turn. A reward or an end may be an array of one element.

    Raises:
        UserError: as `begin`; or the reward is no number, or an end is no truth value.
    """
    found = _answer(where, "step", 5, "five values", lambda: environment.step(action))
    observation, reward, terminated, truncated, info = found
    return Turn(
        observation,
        float(_one(where, "reward", reward)),
        bool(_one(where, "terminated", terminated)),
        bool(_one(where, "truncated", truncated)),
        info,
    )


def _one(where: str, what: str, value: Any) -> Any:
    """Return the one number or truth value that this is."""
    if isinstance(value, bool | int | float):
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise UserError(f"{where} gives {str(value)[:60]!r} for {what}: correct it to one number")
    return array.item()


def _answer(where: str, method: str, count: int, described: str, ask: Callable[[], Any]) -> tuple[Any, ...]:
    """Return what a method of the environment returns, which has to be so many values."""
    try:
        found = ask()
    except NOT_ITS_OWN:
        raise
    except Exception as error:  # of whoever wrote it
        raise UserError(f"{where} raises in `{method}`: {first_line(error)}") from error
    if not (isinstance(found, tuple) and len(found) == count):
        raise UserError(f"{where} does not return {described} from `{method}`, as Gymnasium's do: wrap it")
    return found
