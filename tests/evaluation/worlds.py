"""Small environments that announce any spaces, and look at what they are sent."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from dr3_ray.data import SpaceSpec
from dr3_ray.evaluation.contract import Recorded

STEPS = 20


class World(gym.Env[Any, Any]):
    """Episodes of `length` steps. `see` gives the observation before a step, `earn` the reward of an action.

    Raises:
        AssertionError: an action is not in its own action space.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        see: Callable[[int], Any],
        earn: Callable[[Any, int], float] = lambda action, step: 0.0,
        length: int = STEPS,
    ):
        self.observation_space, self.action_space = observation_space, action_space
        self.see, self.earn, self.length = see, earn, length
        self.received: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """From the first step."""
        self.steps = 0
        return self.see(0), {}

    def step(self, action: Any) -> Any:
        """Keep the action."""
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.received.append(action)
        reward = self.earn(action, self.steps)
        self.steps += 1
        return self.see(self.steps), reward, False, self.steps == self.length, {}


def recorded(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Recorded:
    """What data have that were recorded in these spaces."""
    return Recorded("here", *map(SpaceSpec.from_gymnasium, (observation_space, action_space)))
