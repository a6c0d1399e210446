"""Rollouts: every member of a population plays its episodes at the same time, one forward pass for all."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dr3_ray.data.spaces import named_parts
from dr3_ray.observations import Observations

Returns = npt.NDArray[np.float64]
Make = Callable[[], gym.Env[Any, Any]]
Act = Callable[[Observations], Tensor]


class Rollout:
    """Environments for K members and E episodes each, made once and played as often as wanted."""

    def __init__(self, make: Make, members: int, episodes: int):
        self.environments = [[make() for _ in range(episodes)] for _ in range(members)]
        space = self.environments[0][0].action_space
        if isinstance(space, gym.spaces.Box):
            self.to_environment: Callable[[npt.NDArray[Any]], Any] = lambda a: (
                space.low + (np.clip(a, -1.0, 1.0) + 1.0) * 0.5 * (space.high - space.low)
            ).astype(space.dtype)
        else:
            assert isinstance(space, gym.spaces.Discrete)
            self.to_environment = lambda a: a + space.start

    def play(self, act: Act, seeds: Sequence[int]) -> tuple[Returns, npt.NDArray[np.int64]]:
        """Undiscounted returns and lengths [K, E] of one episode an environment.

        `act` maps observations [K, N, *observation], of a Dict space its parts by name, to actions [K, N] or [K, N, A]
        in [−1, 1]. Episode e starts from `seeds[e]` for every member, so that members are compared on equal draws.
        """
        members, episodes = len(self.environments), len(self.environments[0])
        first = [
            [named_parts(env.reset(seed=seed)[0]) for env, seed in zip(row, seeds, strict=True)]
            for row in self.environments
        ]
        parts = {name: np.stack([[start[name] for start in row] for row in first]) for name in first[0][0]}
        returns, lengths = np.zeros((members, episodes)), np.zeros((members, episodes), dtype=np.int64)
        running = np.ones((members, episodes), dtype=bool)
        while running.any():
            columns = np.flatnonzero(running.any(0))  # episodes that some member still plays
            seen = {name: torch.from_numpy(part[:, columns]) for name, part in parts.items()}
            actions = act(seen.get("", seen)).cpu().numpy()  # the part without a name is a plain observation
            for member, column in zip(*np.nonzero(running[:, columns]), strict=True):
                episode = columns[column]
                action = self.to_environment(actions[member, column])
                observation, reward, terminated, truncated, _ = self.environments[member][episode].step(action)
                for name, part in named_parts(observation).items():
                    parts[name][member, episode] = part
                returns[member, episode] += float(reward)
                lengths[member, episode] += 1
                running[member, episode] = not (terminated or truncated)
        return returns, lengths

    def close(self) -> None:
        """Close all environments."""
        for row in self.environments:
            for environment in row:
                environment.close()  # type: ignore[no-untyped-call]
